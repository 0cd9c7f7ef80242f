import { randomBytes } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import { open, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';

/** The holder of a lock says this often that it is alive, in milliseconds. */
const HEARTBEAT = 5_000;
/** A holder that has said nothing for so long is gone, wherever it ran. */
const STALE_AFTER = 60_000;
const POLL = 100;

interface Owner {
  pid: number;
  /** Machine and process namespace: only there does the pid mean anything. */
  place: string;
  id: string;
}

function place(): string {
  try {
    return `${hostname()} ${readlinkSync('/proc/self/ns/pid')}`;
  } catch {
    return hostname();
  }
}

async function ownerOf(path: string): Promise<Owner | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Owner;
  } catch {
    return undefined;
  }
}

/** Whether a process of this machine is there. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Whether a lock is held by a program that is still there. */
export async function isLocked(path: string): Promise<boolean> {
  const stats = await stat(path).catch(() => undefined);
  if (!stats || Date.now() - stats.mtimeMs > STALE_AFTER) {
    return false;
  }
  const owner = await ownerOf(path);
  return owner === undefined || owner.place !== place() || isRunning(owner.pid);
}

/** A lock that other programs see: a file that names who holds it. A lock whose holder was killed is taken over. */
export class FileLock {
  private constructor(
    private readonly path: string,
    private readonly id: string,
    private readonly heartbeat: NodeJS.Timeout,
  ) {}

  /**
   * Waits until the lock is free.
   * @param isNeeded asked while it waits; without need any more the result is undefined
   */
  static async acquire(
    path: string,
    isNeeded: () => Promise<boolean>,
    signal?: AbortSignal,
  ): Promise<FileLock | undefined> {
    while (await isNeeded()) {
      const lock = await FileLock.tryAcquire(path);
      if (lock) {
        return lock;
      }
      if (!(await isLocked(path))) {
        // moved away first, so that of two programs that see this only one removes it
        const gone = `${path}.${randomBytes(4).toString('hex')}.stale`;
        await rename(path, gone).catch(() => undefined);
        await rm(gone, { force: true });
      } else {
        await delay(POLL, undefined, { signal });
      }
    }
    return undefined;
  }

  private static async tryAcquire(path: string): Promise<FileLock | undefined> {
    const id = randomBytes(8).toString('hex');
    try {
      const handle = await open(path, 'wx');
      await handle.writeFile(JSON.stringify({ pid: process.pid, place: place(), id } satisfies Owner));
      await handle.close();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') {
        return undefined;
      }
      throw error;
    }
    const beat = (): void => {
      const now = new Date();
      utimes(path, now, now).catch(() => undefined);
    };
    return new FileLock(path, id, setInterval(beat, HEARTBEAT).unref());
  }

  /** Whether no other program has taken the lock over. */
  async isHeld(): Promise<boolean> {
    return (await ownerOf(this.path))?.id === this.id;
  }

  async release(): Promise<void> {
    clearInterval(this.heartbeat);
    if (await this.isHeld()) {
      await rm(this.path, { force: true });
    }
  }
}
