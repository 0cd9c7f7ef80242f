import { constants } from 'node:os';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/** Turns Ctrl-C and the request to terminate into an AbortSignal. */
export interface Interruption {
  signal: AbortSignal;
  /** 128 + the number of the signal that came; undefined when none did. */
  exitCode(): number | undefined;
}

/**
 * The first signal aborts; from then on both have their usual effect again, so that a second one ends the process at
 * once, even in the middle of a computation.
 * @param onFirst called with the first signal, to bring the terminal in order
 */
export function interruption(onFirst: () => void): Interruption {
  const controller = new AbortController();
  let code: number | undefined;
  const stop = (name: (typeof SIGNALS)[number]) => {
    for (const signal of SIGNALS) {
      process.removeListener(signal, stop);
    }
    code = 128 + constants.signals[name];
    onFirst();
    controller.abort(new Error(`got ${name}`));
  };
  for (const signal of SIGNALS) {
    process.on(signal, stop);
  }
  return { signal: controller.signal, exitCode: () => code };
}
