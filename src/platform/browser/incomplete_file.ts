import { DownloadError, FileWriteError } from '../../errors.js';
import type { HubContent, IncompleteContent } from '../types.js';
import { type ContentHash, hashFor } from './content_hash.js';
import { privateFile, removePrivate, writePrivate } from './private_files.js';

/** What has arrived of a download that was stopped is kept from so many bytes on; less comes again as fast. */
const WORTH_KEEPING = 2 ** 20;
const CHUNK = 2 ** 20;

/** A file of the page's private file system that one worker at a time reads and writes in place (File System standard). */
export interface AccessHandle {
  getSize(): number;
  read(to: Uint8Array, options: { at: number }): number;
  write(from: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  flush(): void;
  close(): void;
}

/** A download that grows in the page's private file system and is hashed on its way. */
export class IncompletePrivateFile implements IncompleteContent {
  /** Nothing of it is to be kept. */
  private discarded = false;
  private hash: ContentHash;
  size = 0;
  validator: string | undefined;

  private constructor(
    private readonly path: string,
    private readonly file: HubContent,
    private readonly handle: AccessHandle,
  ) {
    this.hash = hashFor(file.etag, file.size);
  }

  /** Takes up what an earlier page left, as far as it is known by a validator. */
  static async open(path: string, file: HubContent, handle: AccessHandle): Promise<IncompletePrivateFile> {
    const part = new IncompletePrivateFile(path, file, handle);
    const validator = await privateFile(validatorPath(path)).then(
      (blob) => blob.text(),
      () => undefined,
    );
    if (validator === undefined || handle.getSize() > file.size) {
      handle.truncate(0);
      return part;
    }
    part.validator = validator;
    part.takeUp();
    return part;
  }

  /** Hashes what is there. */
  private takeUp(): void {
    const bytes = new Uint8Array(CHUNK);
    for (const there = this.handle.getSize(); this.size < there; ) {
      const length = this.handle.read(bytes, { at: this.size });
      this.hash.update(bytes.subarray(0, length));
      this.size += length;
    }
  }

  async restart(validator: string | undefined): Promise<void> {
    this.handle.truncate(0);
    await removePrivate(validatorPath(this.path));
    if (validator !== undefined) {
      await writePrivate(validatorPath(this.path), validator);
    }
    this.hash = hashFor(this.file.etag, this.file.size);
    this.size = 0;
    this.validator = validator;
  }

  async write(bytes: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < bytes.length; ) {
        done += this.handle.write(bytes.subarray(done), { at: this.size + done });
      }
    } catch (error) {
      this.discarded = true;
      throw noRoom(this.file.path, error);
    }
    this.hash.update(bytes);
    this.size += bytes.length;
  }

  async complete(): Promise<void> {
    this.discarded = true;
    if (this.size !== this.file.size || (await this.hash.digest()) !== this.file.etag) {
      throw new DownloadError(
        `'${this.file.path}' did not arrive as the hub names it: its ${this.size} bytes are not those of ` +
          `${this.file.etag}; nothing of it was kept, try again`,
      );
    }
    this.handle.flush();
    this.handle.close();
    await removePrivate(validatorPath(this.path));
  }

  async release(): Promise<void> {
    this.handle.close();
    if (this.discarded || this.validator === undefined || this.size < WORTH_KEEPING) {
      await removePrivate(this.path);
      await removePrivate(validatorPath(this.path));
    }
  }
}

export function noRoom(path: string, error: unknown): FileWriteError {
  return new FileWriteError(
    `'${path}' cannot be kept in this browser (${(error as Error).message}); free some space, or delete other models`,
    { cause: error },
  );
}

/** Where the server's own name of the content is kept, which a continued download must still have. */
const validatorPath = (incomplete: string): string => `${incomplete}.validator`;
