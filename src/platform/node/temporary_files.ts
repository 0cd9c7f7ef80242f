import { randomBytes } from 'node:crypto';
import { readdir, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** Age at which a temporary file that nobody has touched belongs to no program any more, in milliseconds. */
export const ABANDONED_AFTER = 24 * 3600 * 1000;
const TEMPORARY = /^\..*\.[0-9a-f]{12}\.tmp$/s;

const swept = new Set<string>();

/** A new name in the directory of `path`, which no reader takes for anything. */
export function temporaryBeside(path: string): string {
  return join(dirname(path), `.${basename(path).slice(0, 60)}.${randomBytes(6).toString('hex')}.tmp`);
}

/** Whether nothing has changed at `path` for a day. */
export async function isAbandoned(path: string): Promise<boolean> {
  const stats = await stat(path).catch(() => undefined);
  return stats !== undefined && Date.now() - stats.mtimeMs > ABANDONED_AFTER;
}

/** Removes what programs that were killed left in a directory a day ago or earlier; once per directory and process. */
export async function removeAbandoned(dir: string): Promise<void> {
  if (swept.has(dir)) {
    return;
  }
  swept.add(dir);
  for (const name of await readdir(dir).catch(() => [])) {
    if (TEMPORARY.test(name) && (await isAbandoned(join(dir, name)))) {
      await rm(join(dir, name), { recursive: true, force: true }).catch(() => undefined);
    }
  }
}
