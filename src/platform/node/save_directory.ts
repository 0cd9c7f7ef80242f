import { randomBytes } from 'node:crypto';
import { mkdirSync, renameSync, rmSync } from 'node:fs';
import { chmod, lstat, readdir, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { FileWriteError } from '../../errors.js';
import { isRunning } from './file_lock.js';
import { cannotWrite, isSystemError, makeDirectory, syncDirectory, write } from './files.js';
import { isAbandoned } from './temporary_files.js';

/** Where a directory's new files stand until all of them are there; the process that writes them is part of the name. */
const STAGING = /^\.tfjs-save-(\d+)-[0-9a-f]{12}$/;
const COMMIT = 'commit.json';

/** What is to be done when everything has been written. */
interface Commit {
  /** Paths of the new files, relative to the directory. */
  files: string[];
  /** Paths of files that the new ones replace. */
  removed: string[];
}

const isInside = (path: unknown): path is string =>
  typeof path === 'string' && path !== '' && !path.split(/[/\\]/).some((part) => ['', '.', '..'].includes(part));

/** The files under a directory, relative to it, in an order in which one that names the others comes last. */
async function filesUnder(dir: string, inside = ''): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(join(dir, inside), { withFileTypes: true })) {
    const path = inside === '' ? entry.name : `${inside}/${entry.name}`;
    found.push(...(entry.isDirectory() ? await filesUnder(dir, path) : [path]));
  }
  return found.sort((a, b) => b.split('/').length - a.split('/').length);
}

/** Gives each new file the mode of the one that it replaces, and refuses to replace what is no file. */
async function prepare(dir: string, staging: string, files: readonly string[]): Promise<void> {
  for (const path of files) {
    const there = await lstat(join(dir, path)).catch(() => undefined);
    if (there?.isDirectory()) {
      throw new FileWriteError(`cannot write '${join(dir, path)}': it is a directory; choose another directory`);
    }
    if (there?.isFile()) {
      await chmod(join(staging, path), there.mode & 0o7777);
    }
  }
}

/** The files beside the new ones that go with what they replace. */
async function replacedFiles(dir: string, files: string[], isReplaced: (path: string) => boolean): Promise<string[]> {
  const folders = [...new Set(files.map((path) => dirname(path)))];
  const present = await Promise.all(
    folders.map(async (folder) => {
      const names = await readdir(join(dir, folder)).catch(() => []);
      return names.map((name) => (folder === '.' ? name : `${folder}/${name}`));
    }),
  );
  return present.flat().filter((path) => !files.includes(path) && isReplaced(path));
}

/** Puts the new files in place, in one go of the system's calls; what an earlier go has moved is not there any more. */
function carryOut(dir: string, staging: string, { files, removed }: Commit): void {
  for (const path of files) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    try {
      renameSync(join(staging, path), join(dir, path));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
        throw error;
      }
    }
  }
  for (const path of removed) {
    rmSync(join(dir, path), { force: true });
  }
}

async function readCommit(staging: string): Promise<Commit | undefined> {
  try {
    const { files, removed } = JSON.parse(await readFile(join(staging, COMMIT), 'utf8')) as Commit;
    return [...files, ...removed].every(isInside) ? { files, removed } : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Brings a directory that a program was killed in while it saved to the state before or after: what had been written
 * whole is put in place, what had not is removed.
 * @throws FileWriteError when the directory cannot be written
 */
export async function finishSaves(dir: string): Promise<void> {
  const names = await readdir(dir).catch(() => []);
  for (const name of names.filter((each) => STAGING.test(each))) {
    const staging = join(dir, name);
    const commit = await readCommit(staging);
    try {
      if (commit) {
        carryOut(dir, staging, commit);
      }
      if (commit || !isRunning(Number(STAGING.exec(name)![1])) || (await isAbandoned(staging))) {
        await rm(staging, { recursive: true, force: true });
      }
    } catch (error) {
      throw isSystemError(error) ? cannotWrite(staging, error) : error;
    }
  }
}

/**
 * Writes files into a directory, all or none of them: `fill` writes them into another one beside, and they take their
 * places when all are on the disk.
 * @param isReplaced tells, by path, files of the directory that go with those that are written over
 * @throws FileWriteError when the directory cannot be written; whatever `fill` throws otherwise
 */
export async function save(
  dir: string,
  fill: (staging: string) => Promise<void>,
  isReplaced: (path: string) => boolean = () => false,
): Promise<void> {
  await makeDirectory(dir);
  await finishSaves(dir);
  const staging = join(dir, `.tfjs-save-${process.pid}-${randomBytes(6).toString('hex')}`);
  try {
    await makeDirectory(staging);
    await fill(staging);
    const files = await filesUnder(staging);
    await prepare(dir, staging, files);
    const commit: Commit = { files, removed: await replacedFiles(dir, files, isReplaced) };
    await write(join(staging, COMMIT), JSON.stringify(commit));
    carryOut(dir, staging, commit);
    await syncDirectory(dir);
  } catch (error) {
    throw isSystemError(error) ? cannotWrite(dir, error) : error;
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}
