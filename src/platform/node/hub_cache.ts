import {
  copyFile,
  lstat,
  mkdir,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  statfs,
  symlink,
} from 'node:fs/promises';
import { basename, dirname, join, posix, relative, sep } from 'node:path';
import { DownloadError, FileWriteError } from '../../errors.js';
import { warn } from '../../utils/logging.js';
import type { HubCache, HubContent, IncompleteContent } from '../types.js';
import { hashFile, hashFor, isContentName } from './content_hash.js';
import { FileLock, isLocked } from './file_lock.js';
import { isSystemError, syncDirectory, write } from './files.js';
import { cannotWriteCache, IncompleteFile } from './incomplete_file.js';
import { isAbandoned, temporaryBeside } from './temporary_files.js';

/** Files up to this size are hashed each time; of larger ones it is remembered that they were. */
const ALWAYS_HASHED = 2 ** 20;
const VERIFIED = '.tfjs-diffusers-verified.json';
const OURS = /^[0-9a-f]{40,64}\.tfjs((\.validator)?\.incomplete|\.lock)$/;

/** Refuses names from the network that would lead out of the directory they are joined to. */
export function checkRelativePath(path: string): void {
  const parts = path.split(/[/\\]/);
  if (
    path === '' ||
    path.includes('\\') ||
    path.includes('\0') ||
    /^[a-zA-Z]:/.test(path) ||
    parts.some((p) => p === '' || p === '..' || p === '.')
  ) {
    throw new DownloadError(
      `the hub named a file ${JSON.stringify(path.slice(0, 200))}, which could lead out of the cache; nothing was written`,
    );
  }
}

/**
 * One repository in the cache directory that Hugging Face's libraries share: blobs/<etag> holds contents,
 * snapshots/<commit>/<path> links to them, refs/<revision> names a commit
 * (huggingface_hub's "Understand caching").
 */
class CachedRepository implements HubCache {
  private swept = false;

  constructor(readonly root: string) {}

  snapshotDir(commit: string): string {
    checkRelativePath(commit);
    return join(this.root, 'snapshots', commit);
  }

  async findSnapshot(revision: string): Promise<string | undefined> {
    checkRelativePath(revision);
    const ref = await readFile(join(this.root, 'refs', revision), 'utf8').catch(() => revision);
    const dir = this.snapshotDir(ref.trim());
    return (await stat(dir).catch(() => undefined)) === undefined ? undefined : dir;
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    if (revision !== commit) {
      checkRelativePath(revision);
      const path = join(this.root, 'refs', revision);
      await mkdir(dirname(path), { recursive: true });
      await write(path, commit);
    }
  }

  async has(commit: string, file: HubContent): Promise<boolean> {
    checkRelativePath(file.path);
    if (!isContentName(file.etag)) {
      throw new DownloadError(`the hub names the content of '${file.path}' by no hash; nothing was written`);
    }
    const pointer = this.pointer(commit, file.path);
    if (await this.isWhole(pointer, file)) {
      return true;
    }
    if (await this.isWhole(this.blob(file.etag), file)) {
      await this.link(commit, file);
      return true;
    }
    return false;
  }

  async isDamaged(path: string): Promise<boolean> {
    const real = await realpath(path).catch(() => path);
    const etag = basename(real);
    return basename(dirname(real)) === 'blobs' && isContentName(etag) && !(await this.isIntact(real, etag));
  }

  async begin(commit: string, file: HubContent, signal?: AbortSignal): Promise<IncompleteContent | undefined> {
    const blob = this.blob(file.etag);
    let lock: FileLock | undefined;
    try {
      await mkdir(dirname(blob), { recursive: true });
      await this.removeAbandoned();
      lock = await FileLock.acquire(`${blob}.tfjs.lock`, async () => !(await this.has(commit, file)), signal);
      if (!lock) {
        return undefined;
      }
      const part = await IncompleteFile.open(`${blob}.tfjs.incomplete`, file, lock);
      await checkSpace(dirname(blob), file.size - part.size).catch(async (error) => {
        await part.release();
        throw error;
      });
      return part;
    } catch (error) {
      await lock?.release();
      throw isSystemError(error) ? cannotWriteCache(error) : error;
    }
  }

  async adopt(part: IncompleteContent, commit: string, file: HubContent): Promise<void> {
    await part.complete();
    const blob = this.blob(file.etag);
    try {
      await rename(`${blob}.tfjs.incomplete`, blob);
      await syncDirectory(dirname(blob));
      await this.remember(blob, file.etag);
      await this.link(commit, file);
    } catch (error) {
      throw isSystemError(error) ? cannotWriteCache(error) : error;
    }
  }

  async list(dir: string): Promise<string[]> {
    const entries = await readdir(dir, { recursive: true });
    const found: string[] = [];
    for (const entry of entries) {
      if ((await stat(join(dir, entry)).catch(() => undefined))?.isFile()) {
        found.push(entry.split(sep).join(posix.sep));
      }
    }
    return found.sort();
  }

  private pointer(commit: string, path: string): string {
    return join(this.snapshotDir(commit), path);
  }

  private blob(etag: string): string {
    return join(this.root, 'blobs', etag);
  }

  /** Whether a file is there with its size and content; a damaged one is removed, and it is said. */
  private async isWhole(path: string, { etag, size }: HubContent): Promise<boolean> {
    const stats = await stat(path).catch(() => undefined);
    if (!stats?.isFile() || stats.size !== size) {
      return false;
    }
    const real = await realpath(path);
    if (await this.isIntact(real, etag)) {
      return true;
    }
    warn(`${real} is damaged: its content is not what its name says; it is downloaded again`);
    await rm(real, { force: true });
    return false;
  }

  private async isIntact(path: string, etag: string): Promise<boolean> {
    const { size } = await stat(path);
    if (size > ALWAYS_HASHED && (await this.verified())[etag] === (await fingerprint(path))) {
      return true;
    }
    const hash = await hashFile(hashFor(etag, size), path);
    if (hash.digest('hex') !== etag) {
      return false;
    }
    await this.remember(path, etag);
    return true;
  }

  private async verified(): Promise<Record<string, unknown>> {
    const text = await readFile(join(this.root, VERIFIED), 'utf8').catch(() => '{}');
    try {
      return Object(JSON.parse(text)) as Record<string, unknown>;
    } catch {
      return {};
    }
  }

  /** Notes that a file has the content of its name, so that it need not be hashed again while nobody writes to it. */
  private async remember(path: string, etag: string): Promise<void> {
    if ((await stat(path)).size > ALWAYS_HASHED) {
      const known = { ...(await this.verified()), [etag]: await fingerprint(path) };
      // a cache that cannot be written is still a cache: its files are hashed each time
      await write(join(this.root, VERIFIED), JSON.stringify(known)).catch(() => undefined);
    }
  }

  /** Removes downloads of ours that no program is at work on: those given up a day ago, and rests beside a whole blob. */
  private async removeAbandoned(): Promise<void> {
    if (this.swept) {
      return;
    }
    this.swept = true;
    const dir = join(this.root, 'blobs');
    for (const name of (await readdir(dir)).filter((each) => OURS.test(each))) {
      const blob = join(dir, name.slice(0, name.indexOf('.')));
      const isDone = name.endsWith('.lock') || (await stat(blob).catch(() => undefined)) !== undefined;
      if ((isDone || (await isAbandoned(join(dir, name)))) && !(await isLocked(`${blob}.tfjs.lock`))) {
        await rm(join(dir, name), { force: true });
      }
    }
  }

  private async link(commit: string, { path, etag }: HubContent): Promise<void> {
    const pointer = this.pointer(commit, path);
    const blob = this.blob(etag);
    await mkdir(dirname(pointer), { recursive: true });
    await rm(pointer, { force: true });
    try {
      await symlink(relative(dirname(pointer), blob), pointer);
    } catch (error) {
      // Another process may have linked it first; some file systems and Windows accounts allow no links.
      if (!(await lstat(pointer).catch(() => undefined))) {
        if ((error as NodeJS.ErrnoException).code === 'ENOSPC') {
          throw error;
        }
        const temporary = temporaryBeside(pointer);
        await copyFile(blob, temporary);
        await rename(temporary, pointer);
      }
    }
  }
}

/** Changes whenever somebody writes to a file or puts another in its place. */
async function fingerprint(path: string): Promise<string> {
  const { size, mtimeMs, ctimeMs, ino } = await stat(path);
  return [size, mtimeMs, ctimeMs, ino].join(' ');
}

/** @throws FileWriteError when a file system has less room than is needed */
async function checkSpace(dir: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dir);
  if (bytes > bavail * bsize) {
    throw new FileWriteError(
      `the cache directory ${dir} has room for ${bavail * bsize} bytes, but ${bytes} are to be downloaded; ` +
        'free some space, or choose another directory with {cacheDir} or HF_HUB_CACHE',
    );
  }
}

/** The cache's part for a repository of models. */
export function openHubCache(cacheDir: string, id: string): HubCache {
  return new CachedRepository(join(cacheDir, `models--${id.replaceAll('/', '--')}`));
}
