import { FileWriteError } from '../../errors.js';
import type { ByteSink } from '../types.js';
import { notFound } from './sources.js';

/** The page's private file system (OPFS): names of the directories that lead to a path, and its last part. */
function parts(path: string): { folders: string[]; name: string } {
  const all = path
    .slice('opfs:'.length)
    .split('/')
    .filter((part) => part !== '');
  return { folders: all.slice(0, -1), name: all.at(-1) ?? '' };
}

async function directory(folders: string[], create: boolean): Promise<FileSystemDirectoryHandle> {
  let dir = await navigator.storage.getDirectory();
  for (const folder of folders) {
    dir = await dir.getDirectoryHandle(folder, { create });
  }
  return dir;
}

const isNotFound = (error: unknown): boolean =>
  error instanceof DOMException && (error.name === 'NotFoundError' || error.name === 'TypeMismatchError');

async function orNotFound<T>(path: string, f: () => Promise<T>): Promise<T> {
  try {
    return await f();
  } catch (error) {
    throw isNotFound(error) ? notFound(path) : error;
  }
}

export async function privateHandle(path: string, create: boolean): Promise<FileSystemFileHandle> {
  const { folders, name } = parts(path);
  return orNotFound(path, async () => (await directory(folders, create)).getFileHandle(name, { create }));
}

export async function privateFile(path: string): Promise<Blob> {
  return orNotFound(path, async () => (await privateHandle(path, false)).getFile());
}

/** Puts a file in another place, in one act. */
export async function movePrivate(from: string, to: string): Promise<void> {
  const { folders, name } = parts(to);
  const handle = (await privateHandle(from, false)) as FileSystemFileHandle & {
    move(parent: FileSystemDirectoryHandle, name: string): Promise<void>;
  };
  await handle.move(await directory(folders, true), name);
}

/** Removes a file, or a directory with all that is in it; one that is not there is fine. */
export async function removePrivate(path: string): Promise<void> {
  const { folders, name } = parts(path);
  try {
    await (await directory(folders, false)).removeEntry(name, { recursive: true });
  } catch (error) {
    if (!isNotFound(error)) {
      throw error;
    }
  }
}

export async function privateDirectory(path: string, create: boolean): Promise<FileSystemDirectoryHandle> {
  const { folders, name } = parts(path);
  return orNotFound(path, () => directory(name === '' ? folders : [...folders, name], create));
}

export async function listPrivate(path: string): Promise<string[]> {
  const names: string[] = [];
  const dir = await privateDirectory(path, false);
  for await (const name of (dir as unknown as { keys(): AsyncIterable<string> }).keys()) {
    names.push(name);
  }
  return names;
}

/** Writes a file whole or not at all: the browser puts what was written in place when the stream is closed. */
export async function writePrivate(
  path: string,
  content: Uint8Array | string | ((sink: ByteSink) => Promise<void>),
): Promise<void> {
  const handle = await privateHandle(path, true);
  const stream = await handle.createWritable();
  const sink: ByteSink = async (bytes) => {
    try {
      await stream.write(bytes as Uint8Array<ArrayBuffer>);
    } catch (error) {
      throw new FileWriteError(`cannot write '${path}': ${(error as Error).message}`, { cause: error });
    }
  };
  try {
    if (typeof content === 'function') {
      await content(sink);
    } else {
      await sink(typeof content === 'string' ? new TextEncoder().encode(content) : content);
    }
  } catch (error) {
    await stream.abort();
    throw error;
  }
  await stream.close();
}
