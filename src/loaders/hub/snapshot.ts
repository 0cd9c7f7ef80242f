import { type HubCache, type HubContent, type IncompleteContent, listHubFiles } from '#platform';
import { DiffusersError, DownloadError } from '../../errors.js';
import { describe } from '../../utils/check.js';
import { joinPath } from '../../utils/paths.js';
import {
  type HubAccess,
  HubRequestError,
  hubFetch,
  request,
  rootCause,
  throwIfAborted,
  waitBeforeRetry,
} from './request.js';

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
/** A connection that brings fewer bytes than this counts as one that brought none. */
const MIN_PROGRESS = 2 ** 20;
/** The largest repositories of models have some thousands of files, and a page of the listing has 1000. */
const MAX_FILES = 100_000;
const MAX_PAGES = 200;

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
      { transient: true, cause: error },
    );
  }
}

/** The commit behind the revision, as the hub says. */
export async function remoteCommit(access: HubAccess): Promise<string> {
  const { endpoint, id, revision } = access;
  const url = `${endpoint}/api/models/${id}/revision/${encodeURIComponent(revision)}?expand=sha`;
  return ask(access, async () => {
    const { sha } = Object(await (await hubFetch(access, 1)(url)).json()) as { sha?: unknown };
    if (typeof sha !== 'string' || sha === '') {
      throw new Error('it names no commit');
    }
    if (!/^[0-9a-f]{40}$/.test(sha)) {
      throw new DownloadError(
        `${endpoint} named a commit ${describe(sha)}, which could lead out of the cache; nothing was written`,
      );
    }
    return sha;
  });
}

/** The files of a commit. */
async function listRemoteFiles(access: HubAccess, sha: string): Promise<Map<string, HubContent>> {
  const { id, endpoint: hubUrl } = access;
  const fetch = hubFetch(access, MAX_PAGES);
  return ask(access, async () => {
    const files = new Map<string, HubContent>();
    for await (const entry of listHubFiles({ id, revision: sha, hubUrl, fetch })) {
      const [etag, size] = entry.lfs ? [entry.lfs.oid, entry.lfs.size] : [entry.oid, entry.size];
      if (entry.type === 'file' && typeof entry.path === 'string' && etag !== undefined) {
        files.set(entry.path, { path: entry.path, size: checkSize(size), etag });
      }
      if (files.size > MAX_FILES) {
        throw new HubRequestError(`${hubUrl} lists more than ${MAX_FILES} files of '${id}'; check HF_ENDPOINT`, {
          transient: false,
        });
      }
    }
    return files;
  });
}

function checkSize(size: unknown): number {
  if (!Number.isSafeInteger(size) || (size as number) < 0) {
    throw new Error(`it gives a file the size ${String(size).slice(0, 40)}`);
  }
  return size as number;
}

/** The address of a file at a commit. */
export function addressOf({ endpoint, id }: HubAccess, commit: string, path = ''): string {
  return `${endpoint}/${id}/resolve/${commit}${path && '/'}${path.split('/').map(encodeURIComponent).join('/')}`;
}

/** Strong validators alone name the same bytes (RFC 9110, 8.8.1). */
function validatorOf(response: Response): string | undefined {
  const etag = response.headers.get('ETag');
  return etag !== null && !etag.startsWith('W/') && etag.length <= 200 ? etag : undefined;
}

/**
 * Asks for the bytes that a download lacks and writes what arrives. It is continued only where the server still has the
 * content that its first bytes are of; otherwise it begins anew.
 */
async function transfer(
  access: HubAccess,
  commit: string,
  file: HubContent,
  part: IncompleteContent,
  report: () => void,
) {
  const headers = new Headers({ 'Accept-Encoding': 'identity' });
  const asksForRest = part.size > 0 && part.validator !== undefined;
  if (asksForRest) {
    headers.set('Range', `bytes=${part.size}-${file.size - 1}`);
    headers.set('If-Range', part.validator!);
  }
  const { response, chunks } = await request(
    access,
    new URL(addressOf(access, commit, file.path)),
    `'${file.path}'`,
    headers,
  );
  const continues = asksForRest && response.status === 206 && startOf(response) === part.size;
  if (!continues) {
    await part.restart(validatorOf(response));
  }
  for await (const chunk of chunks) {
    if (part.size + chunk.length > file.size) {
      throw new DownloadError(
        `'${file.path}' of '${access.id}' goes on after the ${file.size} bytes that the hub lists; nothing of it was kept`,
      );
    }
    await part.write(chunk);
    report();
  }
  if (part.size < file.size) {
    const why = `it ended after ${part.size} of ${file.size} bytes`;
    throw new HubRequestError(`'${file.path}' of '${access.id}' could not be downloaded: ${why}; try again`, {
      transient: true,
    });
  }
}

/** Where the bytes of a partial answer begin. */
function startOf(response: Response): number {
  return Number(response.headers.get('Content-Range')?.match(/^bytes (\d+)-/)?.[1] ?? Number.NaN);
}

/** Completes a download, over as many connections as bring it on. */
async function fill(access: HubAccess, commit: string, file: HubContent, part: IncompleteContent, report: () => void) {
  let furthest = part.size;
  let retries = 0;
  while (part.size < file.size) {
    try {
      await transfer(access, commit, file, part, report);
    } catch (error) {
      retries = part.size >= furthest + MIN_PROGRESS ? 0 : retries;
      furthest = Math.max(furthest, part.size);
      await waitBeforeRetry(access, error, retries++);
    }
  }
}

/** A commit of a repository on the hub, mirrored in the cache as far as it is asked for. */
export class RemoteSnapshot {
  private overallLoaded = 0;
  private overallTotal = 0;

  private constructor(
    private readonly cache: HubCache,
    private readonly access: HubAccess,
    private readonly commit: string,
    private readonly files: ReadonlyMap<string, HubContent>,
    private readonly onProgress?: (progress: DownloadProgress) => void,
  ) {}

  /** Asks the hub for the commit behind the revision and for its files. */
  static async open(
    cache: HubCache,
    access: HubAccess,
    onProgress?: (progress: DownloadProgress) => void,
  ): Promise<RemoteSnapshot> {
    const commit = await remoteCommit(access);
    return new RemoteSnapshot(cache, access, commit, await listRemoteFiles(access, commit), onProgress);
  }

  /** Where the snapshot lies in the cache. */
  get dir(): string {
    return this.cache.snapshotDir(this.commit);
  }

  paths(): string[] {
    return [...this.files.keys()];
  }

  pathOf(file: string): string {
    return joinPath(this.dir, file);
  }

  /** Downloads those of the files that the cache lacks; the first failure stops the others. */
  async ensure(paths: readonly string[]): Promise<void> {
    const missing: HubContent[] = [];
    for (const path of paths) {
      const file = this.files.get(path);
      if (!file) {
        throw new DownloadError(`'${this.access.id}' has no file '${path}'`);
      }
      if (!(await this.cache.has(this.commit, file))) {
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

  private async downloadOne(file: HubContent, access: HubAccess): Promise<void> {
    throwIfAborted(access.signal, access.id);
    const part = await this.cache.begin(this.commit, file, access.signal);
    if (!part) {
      return;
    }
    let reported = part.size;
    this.overallTotal -= reported;
    const report = (): void => {
      if (part.size > reported) {
        this.overallLoaded += part.size - reported;
        reported = part.size;
        const { overallLoaded, overallTotal } = this;
        this.onProgress?.({ file: file.path, loaded: reported, total: file.size, overallLoaded, overallTotal });
      }
    };
    try {
      await fill(access, this.commit, file, part, report);
      await this.cache.adopt(part, this.commit, file);
    } finally {
      await part.release();
    }
  }
}
