import { AbortedError, InvalidArgumentError } from '../errors.js';

/** How the command ends, as shells expect it. */
export const EXIT = { ok: 0, failure: 1, usage: 2 } as const;

/** The command line itself is wrong: an unknown option, a value that no model could use. */
export class UsageError extends Error {}

/** Runs a check of something that the user typed; what it says of bad arguments is then an error of usage. */
export async function asUsage<T>(check: () => T | Promise<T>): Promise<T> {
  try {
    return await check();
  } catch (error) {
    if (error instanceof InvalidArgumentError) {
      throw new UsageError(error.message, { cause: error });
    }
    throw error;
  }
}

export function usageMessage(message: string): string {
  return `tfjs-diffusers: ${message} (see tfjs-diffusers --help)\n`;
}

/** Prints the one message of an error on stderr, with the stack when DEBUG is set, and gives the exit code. */
export function reportError(error: unknown, interruptedCode: number | undefined): number {
  if (interruptedCode !== undefined && (error instanceof AbortedError || isAbort(error))) {
    process.stderr.write('tfjs-diffusers: stopped\n');
    return interruptedCode;
  }
  const message = error instanceof Error ? error.message || error.name : String(error);
  const usage = error instanceof UsageError;
  process.stderr.write(usage ? usageMessage(message) : `tfjs-diffusers: ${message}\n`);
  if (process.env.DEBUG && error instanceof Error) {
    process.stderr.write(`${error.stack}\n`);
    for (let { cause } = error; cause instanceof Error; cause = cause.cause) {
      process.stderr.write(`caused by ${cause.stack}\n`);
    }
  }
  return usage ? EXIT.usage : EXIT.failure;
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}
