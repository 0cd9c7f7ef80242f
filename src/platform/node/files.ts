import { access, constants, type FileHandle, mkdir, open, readdir, realpath, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { FileWriteError } from '../../errors.js';
import type { ByteSink } from '../types.js';
import { openFile } from './file_source.js';
import { removeAbandoned, temporaryBeside } from './temporary_files.js';

/** Explains why a path cannot be written, from the system's error code. */
function reason(error: unknown, path: string): string {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
      return `the directory '${dirname(path)}' does not exist; create it or choose another path`;
    case 'ENOTDIR':
      return `'${dirname(path)}' is not a directory; choose another path`;
    case 'EACCES':
    case 'EPERM':
      return `no permission to write in '${dirname(path)}'; choose another path`;
    case 'EROFS':
      return `'${dirname(path)}' is on a read-only file system; choose another path`;
    case 'ENOSPC':
    case 'EDQUOT':
      return 'the disk is full; free some space or choose another path';
    case 'EFBIG':
      return 'files may not grow that large here; choose another path';
    case 'ENAMETOOLONG':
      return 'the name is too long; choose a shorter one';
    default:
      return (error as Error).message;
  }
}

/** Whether an error is the system's, rather than one of the code that wrote. */
export const isSystemError = (error: unknown): error is NodeJS.ErrnoException =>
  typeof (error as NodeJS.ErrnoException | null)?.syscall === 'string';

export const cannotWrite = (path: string, error: unknown): FileWriteError =>
  new FileWriteError(`cannot write '${path}': ${reason(error, path)}`, { cause: error });

/** The file that writing to `path` replaces: symbolic links are followed, anything but a regular file is refused. */
async function target(path: string): Promise<{ file: string; mode?: number }> {
  let file: string;
  try {
    file = await realpath(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      return { file: path };
    }
    throw cannotWrite(path, error);
  }
  const stats = await stat(file);
  if (!stats.isFile()) {
    const kind = stats.isDirectory() ? 'a directory' : 'not a regular file';
    throw new FileWriteError(`cannot write '${path}': it is ${kind}; choose the path of a file`);
  }
  return { file, mode: stats.mode & 0o7777 };
}

/** Makes a rename last through a loss of power, where the file system has that to do. */
export async function syncDirectory(dir: string): Promise<void> {
  const handle = await open(dir, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

/** Fills a new file, down to the disk. */
async function fill(handle: FileHandle, content: Uint8Array | string | ((sink: ByteSink) => Promise<void>)) {
  if (typeof content === 'function') {
    await content((bytes) => handle.writeFile(bytes));
  } else {
    await handle.writeFile(content);
  }
  await handle.sync();
}

export async function write(
  path: string,
  content: Uint8Array | string | ((sink: ByteSink) => Promise<void>),
): Promise<void> {
  const { file, mode } = await target(path);
  const temporary = temporaryBeside(file);
  let handle: FileHandle | undefined;
  try {
    await removeAbandoned(dirname(file));
    handle = await open(temporary, 'wx', mode);
    if (mode !== undefined) {
      await handle.chmod(mode);
    }
    await fill(handle, content);
    await handle.close();
    handle = undefined;
    await rename(temporary, file);
    await syncDirectory(dirname(file));
  } catch (error) {
    await handle?.close();
    await rm(temporary, { force: true }).catch(() => undefined);
    throw isSystemError(error) ? cannotWrite(path, error) : error;
  }
}

async function readBytes(path: string, maxBytes = Infinity): Promise<Uint8Array> {
  const source = await openFile(path);
  try {
    if (source.size > maxBytes) {
      throw new Error(`it has ${source.size} bytes, more than the ${maxBytes} that are expected at most`);
    }
    return await source.read(0, source.size);
  } finally {
    await source.close();
  }
}

async function checkWritable(path: string): Promise<void> {
  const { file } = await target(path);
  try {
    // The trailing separator makes a regular file in the directory's place fail too.
    await access(join(dirname(file), '/'), constants.W_OK | constants.X_OK);
  } catch (error) {
    throw cannotWrite(path, error);
  }
}

export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'EEXIST' ? 'it is a file' : reason(error, path);
    throw new FileWriteError(`cannot make the directory '${path}': ${why}`, { cause: error });
  }
}

async function kind(path: string): Promise<'file' | 'directory' | undefined> {
  const stats = await stat(path).catch(() => undefined);
  return stats && (stats.isDirectory() ? 'directory' : 'file');
}

/** The file system, but for saving directories. */
export const fileSystem = {
  kind,
  list: (dir: string) => readdir(dir),
  readBytes,
  open: openFile,
  checkWritable,
  makeDirectory,
  write,
};
