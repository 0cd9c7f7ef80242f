import type { Hash } from 'node:crypto';
import { type FileHandle, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { DownloadError, FileWriteError } from '../../errors.js';
import type { HubContent, IncompleteContent } from '../types.js';
import { hashFile, hashFor } from './content_hash.js';
import type { FileLock } from './file_lock.js';
import { isSystemError } from './files.js';

/** What has arrived of a download that was stopped is kept from so many bytes on; less comes again as fast. */
const WORTH_KEEPING = 16 * 2 ** 20;

export function cannotWriteCache(error: unknown): FileWriteError {
  return new FileWriteError(
    `the cache directory cannot be written (${(error as Error).message}); ` +
      'free some space, or choose another directory with {cacheDir} or HF_HUB_CACHE',
    { cause: error },
  );
}

/** A download that grows beside its place in the cache, under a lock, and is hashed on its way. */
export class IncompleteFile implements IncompleteContent {
  /** Nothing of it is to be kept. */
  private discarded = false;

  private constructor(
    readonly path: string,
    private readonly file: HubContent,
    private readonly lock: FileLock,
    private readonly handle: FileHandle,
    private hash: Hash,
    public size: number,
    public validator: string | undefined,
  ) {}

  /** Takes up what an earlier program left, as far as it is known by a validator. */
  static async open(path: string, file: HubContent, lock: FileLock): Promise<IncompleteFile> {
    const validator = await readFile(validatorPath(path), 'utf8').catch(() => undefined);
    const there = (await stat(path).catch(() => undefined))?.size ?? 0;
    const resumed = validator !== undefined && there <= file.size;
    const handle = await open(path, resumed ? 'r+' : 'w');
    const hash = hashFor(file.etag, file.size);
    if (resumed) {
      await hashFile(hash, path);
    }
    return new IncompleteFile(path, file, lock, handle, hash, resumed ? there : 0, resumed ? validator : undefined);
  }

  async restart(validator: string | undefined): Promise<void> {
    await this.guarded(async () => {
      await this.handle.truncate(0);
      await rm(validatorPath(this.path), { force: true });
      if (validator !== undefined) {
        await writeFile(validatorPath(this.path), validator);
      }
    });
    this.hash = hashFor(this.file.etag, this.file.size);
    this.size = 0;
    this.validator = validator;
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.guarded(async () => {
      let done = 0;
      while (done < bytes.length) {
        done += (await this.handle.write(bytes, done, bytes.length - done, this.size + done)).bytesWritten;
      }
    });
    this.hash.update(bytes);
    this.size += bytes.length;
  }

  /** Checks the content and brings it to the disk. */
  async complete(): Promise<void> {
    if (this.size !== this.file.size || this.hash.digest('hex') !== this.file.etag) {
      this.discarded = true;
      throw new DownloadError(
        `'${this.file.path}' did not arrive as the hub names it: its ${this.size} bytes are not those of ` +
          `${this.file.etag}; nothing of it was kept, try again`,
      );
    }
    if (!(await this.lock.isHeld())) {
      throw new DownloadError(`another program took over the download of '${this.file.path}'; try again`);
    }
    await this.guarded(() => this.handle.sync());
    this.discarded = true;
  }

  async release(): Promise<void> {
    await this.handle.close().catch(() => undefined);
    const keeps = !this.discarded && this.validator !== undefined && this.size >= WORTH_KEEPING;
    if (!keeps && (await this.lock.isHeld())) {
      await rm(this.path, { force: true });
      await rm(validatorPath(this.path), { force: true });
    }
    await this.lock.release();
  }

  /** A disk that is full or fails leaves no half of a file. */
  private async guarded(act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (error) {
      this.discarded = true;
      throw isSystemError(error) ? cannotWriteCache(error) : error;
    }
  }
}

/** Where the server's own name of the content is kept, which a continued download must still have. */
export const validatorPath = (incomplete: string): string =>
  incomplete.replace(/\.incomplete$/, '.validator.incomplete');
