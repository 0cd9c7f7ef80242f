import { callScope } from '#platform';
import { AbortedError, InvalidArgumentError } from '../../errors.js';

/** Lets calls run one after another in the order in which they were asked for, whatever becomes of those before. */
export class CallQueue {
  private last: Promise<unknown> = Promise.resolve();
  /** Known to whatever a call calls; says whether that call is still going on. */
  private readonly inside = callScope<{ running: boolean }>();

  /**
   * Runs `f` when all earlier calls have ended.
   *
   * @param where class whose calls wait, for error messages
   * @throws AbortedError at once when the signal comes while it waits; `f` is not run then
   * @throws InvalidArgumentError from inside of a call, which would wait for itself
   */
  add<T>(where: string, f: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (this.inside.get()?.running) {
      throw new InvalidArgumentError(
        `[${where}] called from its own callback, it would wait for itself; ` +
          'call it when the first call has ended, or load a second pipeline',
      );
    }
    const call = { running: true };
    const end = () => {
      call.running = false;
    };
    const result = untilAborted(this.last, signal).then(() => this.inside.run(call, f).finally(end));
    // what the calls gave is not kept
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
