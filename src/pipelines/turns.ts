import { AbortedError } from '../errors.js';

/** Lets runs go one after another in the order in which they were asked for, whatever becomes of those before. */
export class Turns {
  private last: Promise<unknown> = Promise.resolve();

  /**
   * Runs `f` when all earlier runs have ended.
   *
   * @throws AbortedError at once when the signal comes while it waits; `f` is not run then
   */
  take<T>(f: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const result = untilAborted(this.last, signal).then(f);
    // what the runs gave is not kept
    this.last = Promise.allSettled([this.last, result]).then(() => undefined);
    return result;
  }
}

async function untilAborted(turn: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) {
    await turn;
    return;
  }
  let stop = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(new AbortedError('drawing was stopped before it began', { cause: signal.reason }));
    if (signal.aborted) {
      stop();
    }
    signal.addEventListener('abort', stop, { once: true });
  });
  try {
    await Promise.race([turn, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
