import { join } from 'node:path';
import { DiffusersError, DownloadError } from '../../errors.js';
import { type CachedRepository, checkRelativePath } from './cache.js';
import { downloadToCache, type RemoteFile } from './download.js';
import { type HubAccess, HubRequestError, hubFetch, rootCause, throwIfAborted } from './request.js';

/** How far a download is, in bytes; files that the cache has do not count. */
export interface DownloadProgress {
  /** Path in the repository of the file that these bytes belong to. */
  file: string;
  loaded: number;
  total: number;
  overallLoaded: number;
  overallTotal: number;
}

/** Files that are downloaded at the same time. */
const PARALLEL_DOWNLOADS = 4;

/** Runs a request of @huggingface/hub; what it throws on an answer that is not the hub's becomes a DownloadError. */
async function ask<T>({ endpoint, id, signal }: HubAccess, request: () => Promise<T>): Promise<T> {
  try {
    return await request();
  } catch (error) {
    throwIfAborted(signal, id);
    if (error instanceof DiffusersError) {
      throw error;
    }
    throw new HubRequestError(
      `${endpoint} gave an answer about '${id}' that is not the hub's (${rootCause(error)}); check HF_ENDPOINT and the network`,
      true,
      { cause: error },
    );
  }
}

/** A commit of a repository on the hub, mirrored in the cache as far as it is asked for. */
export class RemoteSnapshot {
  private overallLoaded = 0;
  private overallTotal = 0;

  private constructor(
    private readonly cache: CachedRepository,
    private readonly access: HubAccess,
    private readonly commit: string,
    private readonly files: ReadonlyMap<string, RemoteFile>,
    private readonly onProgress?: (progress: DownloadProgress) => void,
  ) {}

  /** Asks the hub for the commit behind the revision and for its files. */
  static async open(
    cache: CachedRepository,
    access: HubAccess,
    onProgress?: (progress: DownloadProgress) => void,
  ): Promise<RemoteSnapshot> {
    const { listFiles, modelInfo } = await import('@huggingface/hub');
    const { id, endpoint: hubUrl, revision } = access;
    const fetch = hubFetch(access);
    return ask(access, async () => {
      const { sha } = await modelInfo({ name: id, revision, hubUrl, fetch, additionalFields: ['sha'] });
      if (typeof sha !== 'string') {
        throw new Error('it names no commit');
      }
      checkRelativePath(sha);
      const files = new Map<string, RemoteFile>();
      const repo = { type: 'model', name: id } as const;
      for await (const entry of listFiles({ repo, revision: sha, recursive: true, hubUrl, fetch })) {
        const etag = entry.lfs?.oid ?? entry.xetHash ?? entry.oid;
        if (entry.type === 'file' && etag !== undefined) {
          files.set(entry.path, { path: entry.path, size: entry.lfs?.size ?? entry.size, etag });
        }
      }
      return new RemoteSnapshot(cache, access, sha, files, onProgress);
    });
  }

  /** Where the snapshot lies in the cache. */
  get dir(): string {
    return this.cache.snapshotDir(this.commit);
  }

  paths(): string[] {
    return [...this.files.keys()];
  }

  pathOf(file: string): string {
    return join(this.dir, file);
  }

  /** Downloads those of the files that the cache lacks; the first failure stops the others. */
  async ensure(paths: readonly string[]): Promise<void> {
    const missing: RemoteFile[] = [];
    for (const path of paths) {
      const file = this.files.get(path);
      if (!file) {
        throw new DownloadError(`'${this.access.id}' has no file '${path}'`);
      }
      if (!(await this.cache.has(this.commit, path, file.etag, file.size))) {
        missing.push(file);
        this.overallTotal += file.size;
      }
    }
    const stop = new AbortController();
    const signal = this.access.signal ? AbortSignal.any([this.access.signal, stop.signal]) : stop.signal;
    let failure: { error: unknown } | undefined;
    const worker = async (): Promise<void> => {
      try {
        for (let file = missing.shift(); file; file = missing.shift()) {
          await this.downloadOne(file, { ...this.access, signal });
        }
      } catch (error) {
        failure ??= { error };
        missing.length = 0;
        stop.abort();
      }
    };
    await Promise.all(Array.from({ length: PARALLEL_DOWNLOADS }, worker));
    if (failure) {
      throw failure.error;
    }
  }

  /** Makes the revision's name stand for this commit in the cache. */
  async writeRef(): Promise<void> {
    await this.cache.writeRef(this.access.revision, this.commit);
  }

  private async downloadOne(file: RemoteFile, access: HubAccess): Promise<void> {
    throwIfAborted(access.signal, access.id);
    let reported = 0;
    await downloadToCache(this.cache, access, this.commit, file, (loaded) => {
      this.overallLoaded += loaded - reported;
      reported = loaded;
      const { overallLoaded, overallTotal } = this;
      this.onProgress?.({ file: file.path, loaded, total: file.size, overallLoaded, overallTotal });
    });
  }
}
