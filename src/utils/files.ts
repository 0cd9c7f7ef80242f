import { randomBytes } from 'node:crypto';
import { access, constants, type FileHandle, mkdir, open, realpath, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FileWriteError } from '../errors.js';

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
    case 'ENAMETOOLONG':
      return 'the name is too long; choose a shorter one';
    default:
      return (error as Error).message;
  }
}

/** The file that writing to `path` replaces: symbolic links are followed, anything but a regular file is refused. */
async function target(path: string): Promise<string> {
  let resolved: string;
  try {
    resolved = await realpath(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      return path;
    }
    throw new FileWriteError(`cannot write '${path}': ${reason(error, path)}`, { cause: error });
  }
  const stats = await stat(resolved);
  if (!stats.isFile()) {
    const kind = stats.isDirectory() ? 'a directory' : 'not a regular file';
    throw new FileWriteError(`cannot write '${path}': it is ${kind}; choose the path of a file`);
  }
  return resolved;
}

/**
 * Checks, before long work, that a file can be written at `path` later. Creates nothing.
 * @throws {FileWriteError} saying what is in the way
 */
export async function checkWritable(path: string): Promise<void> {
  const file = await target(path);
  try {
    // The trailing separator makes a regular file in the directory's place fail too.
    await access(join(dirname(file), '/'), constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new FileWriteError(`cannot write '${path}': ${reason(error, path)}`, { cause: error });
  }
}

/**
 * Makes a directory and those above it; one that is there already is fine.
 * @throws {FileWriteError} saying what is in the way
 */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'EEXIST' ? 'it is a file' : reason(error, path);
    throw new FileWriteError(`cannot make the directory '${path}': ${why}`, { cause: error });
  }
}

/**
 * Writes a file whole or not at all: `write` fills a temporary file beside it, which then takes its place. On failure the
 * temporary file is removed and what was at `path` stays as it was.
 * @throws {FileWriteError} when the path cannot be written; whatever `write` throws otherwise
 */
export async function writeFileAtomically(
  path: string,
  write: Uint8Array | string | ((file: FileHandle) => Promise<void>),
): Promise<void> {
  const file = await target(path);
  const temporary = join(dirname(file), `.${basename(file).slice(0, 200)}.${randomBytes(6).toString('hex')}.tmp`);
  let handle: FileHandle | undefined;
  try {
    handle = await open(temporary, 'wx');
    if (typeof write === 'function') {
      await write(handle);
    } else {
      await handle.writeFile(write);
    }
    await handle.close();
    handle = undefined;
    await rename(temporary, file);
  } catch (error) {
    await handle?.close();
    await rm(temporary, { force: true }).catch(() => undefined);
    if (typeof (error as NodeJS.ErrnoException).syscall === 'string') {
      throw new FileWriteError(`cannot write '${path}': ${reason(error, path)}`, { cause: error });
    }
    throw error;
  }
}
