import { copyFile, lstat, mkdir, readdir, readFile, rename, rm, stat, symlink } from 'node:fs/promises';
import { dirname, join, posix, relative, sep } from 'node:path';
import { files } from '#platform';
import { DownloadError } from '../../errors.js';

/** Refuses names from the network that would lead out of the directory they are joined to. */
export function checkRelativePath(path: string): void {
  const parts = path.split(/[/\\]/);
  if (
    path === '' ||
    path.includes('\\') ||
    /^[a-zA-Z]:/.test(path) ||
    parts.some((p) => p === '' || p === '..' || p === '.')
  ) {
    throw new DownloadError(
      `the hub named a file ${JSON.stringify(path)}, which could lead out of the cache; nothing was written`,
    );
  }
}

/**
 * One repository in the cache directory that Hugging Face's libraries share: blobs/<etag> holds contents,
 * snapshots/<commit>/<path> links to them, refs/<revision> names a commit
 * (huggingface_hub's "Understand caching").
 */
export class CachedRepository {
  readonly root: string;

  constructor(cacheDir: string, id: string) {
    this.root = join(cacheDir, `models--${id.replaceAll('/', '--')}`);
  }

  snapshotDir(commit: string): string {
    checkRelativePath(commit);
    return join(this.root, 'snapshots', commit);
  }

  /** The snapshot directory of a revision, a branch, tag or commit; undefined when the cache has none. */
  async findSnapshot(revision: string): Promise<string | undefined> {
    checkRelativePath(revision);
    const ref = await readFile(join(this.root, 'refs', revision), 'utf8').catch(() => revision);
    const dir = this.snapshotDir(ref.trim());
    return (await exists(dir)) ? dir : undefined;
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    if (revision !== commit) {
      checkRelativePath(revision);
      const path = join(this.root, 'refs', revision);
      await mkdir(dirname(path), { recursive: true });
      await files.write(path, commit);
    }
  }

  /**
   * Whether a file of a snapshot is there with its full size; where only its blob is, links it.
   * A file of another size is a leftover of something broken and does not count.
   */
  async has(commit: string, path: string, etag: string, size: number): Promise<boolean> {
    if ((await sizeOf(this.pointer(commit, path))) === size) {
      return true;
    }
    if ((await sizeOf(this.blob(etag))) === size) {
      await this.link(commit, path, etag);
      return true;
    }
    return false;
  }

  /** Takes a finished download into the cache as the content of `path`. */
  async adopt(finished: string, commit: string, path: string, etag: string): Promise<void> {
    await rename(finished, this.blob(etag));
    await this.link(commit, path, etag);
  }

  /** A name beside the blob for content that is not complete yet; no reader takes it for a blob. */
  async incompletePath(etag: string, nonce: string): Promise<string> {
    const blob = this.blob(etag);
    await mkdir(dirname(blob), { recursive: true });
    return `${blob}.${nonce}.incomplete`;
  }

  private pointer(commit: string, path: string): string {
    checkRelativePath(path);
    return join(this.snapshotDir(commit), path);
  }

  private blob(etag: string): string {
    checkRelativePath(etag);
    return join(this.root, 'blobs', etag);
  }

  private async link(commit: string, path: string, etag: string): Promise<void> {
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
        const temporary = `${pointer}.${process.pid}.incomplete`;
        await copyFile(blob, temporary);
        await rename(temporary, pointer);
      }
    }
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  const stats = await stat(path).catch(() => undefined);
  return stats?.isFile() ? stats.size : undefined;
}

export async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

/** Every readable file under a directory, as paths with forward slashes relative to it. */
export async function listDirectory(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true });
  const found: string[] = [];
  for (const entry of entries) {
    if ((await sizeOf(join(dir, entry))) !== undefined) {
      found.push(entry.split(sep).join(posix.sep));
    }
  }
  return found.sort();
}
