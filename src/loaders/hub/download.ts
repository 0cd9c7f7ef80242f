import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { DownloadError, FileWriteError } from '../../errors.js';
import type { CachedRepository } from './cache.js';
import { type HubAccess, HubRequestError, hubFetch, rootCause, throwIfAborted } from './request.js';

/** A file of a repository at a commit. */
export interface RemoteFile {
  path: string;
  size: number;
  /** Name of its content: the SHA-256 of an LFS file, the git hash of another. */
  etag: string;
}

/** Times that a transfer is taken up again without a byte more before it counts as failed. */
const MAX_RETRIES = 4;
/** Waiting before the first retry, in milliseconds; doubles each time. */
const FIRST_DELAY = 250;

/**
 * The bytes of a file from `start` on, as the hub sends them.
 * @throws {HubRequestError} transient when the connection breaks or ends early
 */
async function* contents(
  access: HubAccess,
  commit: string,
  file: RemoteFile,
  start: number,
): AsyncGenerator<Uint8Array> {
  const { downloadFile } = await import('@huggingface/hub');
  const { endpoint, id, signal } = access;
  // The stream that the library makes keeps only the text of an error, so the error itself is kept here.
  let failure: unknown;
  const request = hubFetch(access);
  const fetchKeepingFailure: typeof fetch = async (input, init) => {
    try {
      const response = await request(input, init);
      if (start > 0 && response.status !== 206) {
        await response.body?.cancel();
        throw new HubRequestError(
          `${endpoint} cannot continue the download of '${file.path}' half way; start again`,
          false,
        );
      }
      return response;
    } catch (error) {
      failure = error;
      throw error;
    }
  };
  const url = `${endpoint}/${id}/resolve/${commit}/${file.path.split('/').map(encodeURIComponent).join('/')}`;
  const blob = await downloadFile({
    repo: { type: 'model', name: id },
    path: file.path,
    revision: commit,
    hubUrl: endpoint,
    fetch: fetchKeepingFailure,
    // What the listing said spares a request; without xet it is one plain stream, which can be stopped and continued.
    xet: false,
    downloadInfo: { url, size: file.size, etag: file.etag },
  });
  let position = start;
  try {
    for await (const chunk of blob!.slice(start, file.size).stream()) {
      position += chunk.byteLength;
      yield chunk;
    }
  } catch (error) {
    throwIfAborted(signal, id);
    if (failure instanceof DownloadError) {
      throw failure;
    }
    const why = `the connection broke after ${position} of ${file.size} bytes (${rootCause(failure ?? error)})`;
    throw new HubRequestError(`'${file.path}' of '${id}' could not be downloaded: ${why}; try again`, true, {
      cause: error,
    });
  }
  if (position < file.size) {
    const why = `it ended after ${position} of ${file.size} bytes`;
    throw new HubRequestError(`'${file.path}' of '${id}' could not be downloaded: ${why}; try again`, true);
  }
}

/** Writes the whole file to `handle`; a transfer that breaks is continued where it stopped. */
async function downloadTo(
  handle: FileHandle,
  access: HubAccess,
  commit: string,
  file: RemoteFile,
  report: (loaded: number) => void,
): Promise<void> {
  let position = 0;
  let retries = 0;
  while (position < file.size) {
    const before = position;
    try {
      for await (const chunk of contents(access, commit, file, position)) {
        await handle.writeFile(chunk);
        position += chunk.byteLength;
        report(position);
      }
    } catch (error) {
      retries = position > before ? 1 : retries + 1;
      if (!(error instanceof HubRequestError && error.transient) || retries > MAX_RETRIES) {
        throw error;
      }
      await delay(FIRST_DELAY * 2 ** (retries - 1), undefined, { signal: access.signal }).catch(() => undefined);
      throwIfAborted(access.signal, access.id);
    }
  }
  if (position !== file.size) {
    throw new DownloadError(`'${file.path}' of '${access.id}' has ${position} bytes, expected ${file.size}`);
  }
}

/**
 * Downloads a file into the cache. It grows under a name of its own and takes its place only when it is whole;
 * when the download fails or is stopped, nothing of it stays.
 * @param report called with the bytes that have arrived, more each time
 * @throws {DownloadError} when the hub does not give the file
 * @throws {AbortedError} when the signal stops it
 * @throws {FileWriteError} when the cache cannot be written
 */
export async function downloadToCache(
  repository: CachedRepository,
  access: HubAccess,
  commit: string,
  file: RemoteFile,
  report: (loaded: number) => void,
): Promise<void> {
  let incomplete: string | undefined;
  let handle: FileHandle | undefined;
  try {
    incomplete = await repository.incompletePath(file.etag, randomBytes(6).toString('hex'));
    handle = await open(incomplete, 'wx');
    await downloadTo(handle, access, commit, file, report);
    await handle.close();
    handle = undefined;
    await repository.adopt(incomplete, commit, file.path, file.etag);
  } catch (error) {
    await handle?.close();
    if (incomplete !== undefined) {
      await rm(incomplete, { force: true });
    }
    if (typeof (error as NodeJS.ErrnoException).syscall === 'string') {
      throw new FileWriteError(
        `the cache directory cannot be written (${(error as Error).message}); ` +
          'free some space, or choose another directory with {cacheDir} or HF_HUB_CACHE',
        { cause: error },
      );
    }
    throw error;
  }
}
