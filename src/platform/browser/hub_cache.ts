import { DownloadError } from '../../errors.js';
import type { HubCache, HubContent, IncompleteContent } from '../types.js';
import { isContentName } from './content_hash.js';
import { type AccessHandle, IncompletePrivateFile, noRoom } from './incomplete_file.js';
import {
  listPrivate,
  movePrivate,
  privateDirectory,
  privateFile,
  privateHandle,
  removePrivate,
  writePrivate,
} from './private_files.js';

const ROOT = 'opfs:/hub';
const PREFIX = 'models--';
/** Milliseconds between two looks whether another page has finished a download. */
const WAIT = 500;

type LockableFile = FileSystemFileHandle & { createSyncAccessHandle(): Promise<AccessHandle> };

/** Refuses names from the network that would lead out of the directory they are joined to. */
function checkRelativePath(path: string): void {
  if (path.split('/').some((part) => part === '' || part === '.' || part === '..') || /[\\\0]/.test(path)) {
    throw new DownloadError(
      `the hub named a file ${JSON.stringify(path.slice(0, 200))}, which could lead out of the cache; nothing was written`,
    );
  }
}

const orUndefined = <T>(promise: Promise<T>): Promise<T | undefined> => promise.catch(() => undefined);

/**
 * One repository in the page's private file system: snapshots/<commit>/<path> holds its files, refs/<revision> names a commit,
 * contents/<etag> says where a content lies, incomplete/<etag> is one that is on its way. Files come to their places only whole and
 * with the right hash; nobody but this page can change them there.
 */
class PrivateRepository implements HubCache {
  constructor(readonly root: string) {}

  snapshotDir(commit: string): string {
    checkRelativePath(commit);
    return `${this.root}/snapshots/${commit}`;
  }

  async findSnapshot(revision: string): Promise<string | undefined> {
    const dir = this.snapshotDir((await this.read(`refs/${encodeURIComponent(revision)}`)) ?? revision);
    return (await orUndefined(privateDirectory(dir, false))) && dir;
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    if (revision !== commit) {
      await writePrivate(`${this.root}/refs/${encodeURIComponent(revision)}`, commit);
    }
  }

  /** A content that lies in the snapshot of another commit moves to this one. */
  async has(commit: string, file: HubContent): Promise<boolean> {
    checkRelativePath(file.path);
    if (!isContentName(file.etag)) {
      throw new DownloadError(`the hub names the content of '${file.path}' by no hash; nothing was written`);
    }
    const place = this.placeOf(commit, file);
    const lies = await this.read(`contents/${file.etag}`);
    if (lies === undefined || (await orUndefined(privateFile(lies)))?.size !== file.size) {
      return false;
    }
    if (lies !== place) {
      await movePrivate(lies, place);
      await writePrivate(`${this.root}/contents/${file.etag}`, place);
    }
    return true;
  }

  /** Contents are checked before they come to their places. */
  async isDamaged(): Promise<boolean> {
    return false;
  }

  async begin(commit: string, file: HubContent, signal?: AbortSignal): Promise<IncompleteContent | undefined> {
    const path = this.incomplete(file.etag);
    const handle = await this.lock(path, async () => !(await this.has(commit, file)), signal);
    if (!handle) {
      return undefined;
    }
    const part = await IncompletePrivateFile.open(path, file, handle);
    const { quota = Infinity, usage = 0 } = await navigator.storage.estimate();
    if (file.size - part.size > quota - usage) {
      await part.release();
      throw noRoom(file.path, new Error(`there is room for ${quota - usage} bytes, it has ${file.size}`));
    }
    return part;
  }

  async adopt(part: IncompleteContent, commit: string, file: HubContent): Promise<void> {
    await part.complete();
    const place = this.placeOf(commit, file);
    await movePrivate(this.incomplete(file.etag), place);
    await writePrivate(`${this.root}/contents/${file.etag}`, place);
  }

  async list(dir: string): Promise<string[]> {
    return filesUnder(dir);
  }

  private placeOf(commit: string, file: HubContent): string {
    return `${this.snapshotDir(commit)}/${file.path}`;
  }

  private incomplete(etag: string): string {
    return `${this.root}/incomplete/${etag}`;
  }

  private async read(name: string): Promise<string | undefined> {
    return orUndefined(privateFile(`${this.root}/${name}`).then((blob) => blob.text()));
  }

  /** The file for this worker alone; undefined when, after waiting for who has it, it is not `needed` any more. */
  private async lock(
    path: string,
    needed: () => Promise<boolean>,
    signal?: AbortSignal,
  ): Promise<AccessHandle | undefined> {
    while (await needed()) {
      signal?.throwIfAborted();
      try {
        return await ((await privateHandle(path, true)) as LockableFile).createSyncAccessHandle();
      } catch (error) {
        if (!(error instanceof DOMException && error.name === 'NoModificationAllowedError')) {
          throw noRoom(path, error);
        }
        await new Promise((resolve) => setTimeout(resolve, WAIT));
      }
    }
    return undefined;
  }
}

/** Every file under a directory, as paths relative to it. */
async function filesUnder(dir: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of await listPrivate(dir)) {
    const inside =
      (await orUndefined(privateDirectory(`${dir}/${name}`, false))) && (await filesUnder(`${dir}/${name}`));
    found.push(...(inside ? inside.map((path) => `${name}/${path}`) : [name]));
  }
  return found.sort();
}

const rootOf = (id: string): string => `${ROOT}/${PREFIX}${id.replaceAll('/', '--')}`;

/** Workers alone write files in place; elsewhere, files of the hub are read at their addresses. */
export function openHubCache(cacheDir: string, id: string): HubCache | undefined {
  const canWrite =
    typeof FileSystemFileHandle !== 'undefined' && 'createSyncAccessHandle' in FileSystemFileHandle.prototype;
  return canWrite
    ? new PrivateRepository(cacheDir ? `${cacheDir}/${PREFIX}${id.replaceAll('/', '--')}` : rootOf(id))
    : undefined;
}

/** A model of the hub that the page keeps. */
export interface CachedModel {
  /** Its name on the hub. */
  id: string;
  /** What its files take, those that are on their way included. */
  bytes: number;
}

/** The models of the Hugging Face hub that are kept in the page's private file system. */
export async function listCachedModels(): Promise<CachedModel[]> {
  const names = (await orUndefined(listPrivate(ROOT))) ?? [];
  const models = names.map(async (name) => {
    const paths = await filesUnder(`${ROOT}/${name}`);
    const files = await Promise.all(paths.map((path) => privateFile(`${ROOT}/${name}/${path}`)));
    const bytes = files.reduce((sum, { size }) => sum + size, 0);
    return { id: name.slice(PREFIX.length).replace('--', '/'), bytes };
  });
  return Promise.all(models);
}

/** Deletes a model that `listCachedModels` lists; one that is not there is fine. */
export async function deleteCachedModel(id: string): Promise<void> {
  await removePrivate(rootOf(id));
}
