import * as tf from '@tensorflow/tfjs-core';
import { AbortedError, InvalidArgumentError } from '../errors.js';

/** Characters of a value that an error message shows. */
const MAX_SHOWN = 80;
/** Letters of a name that are worth finding within another one. */
const MIN_HELD = 4;

/** The predicates that arguments, options and configurations are checked by. */
export const is = {
  number: (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value),
  integer: (value: unknown): value is number => Number.isSafeInteger(value),
  /** 1, 2, 3, ... */
  count: (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 1,
  /** 0, 1, 2, ... */
  whole: (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0,
  /** 0 to 1 */
  share: (value: unknown): value is number => is.number(value) && value >= 0 && value <= 1,
  boolean: (value: unknown): value is boolean => typeof value === 'boolean',
  string: (value: unknown): value is string => typeof value === 'string',
  function: (value: unknown): value is (...args: never[]) => unknown => typeof value === 'function',
  /** An object that is neither a list nor null. */
  object: (value: unknown): value is Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value),
  /** A list or typed array of finite numbers. */
  numbers: (value: unknown): value is ArrayLike<number> =>
    (Array.isArray(value) || ArrayBuffer.isView(value)) && Array.from(value as ArrayLike<unknown>).every(is.number),
  oneOf: <T>(choices: readonly T[], value: unknown): value is T => choices.includes(value as T),
  tensor: (value: unknown): value is tf.Tensor => value instanceof tf.Tensor && !value.isDisposed,
  /** An AbortSignal, of any realm or polyfill: what says whether it was given and tells when it is. */
  signal: (value: unknown): value is AbortSignal =>
    is.object(value) && is.boolean(value.aborted) && is.function(value.addEventListener),
} as const;

/** What came where something else was expected, for error messages: short whatever the value is. */
export function describe(value: unknown): string {
  if (value instanceof tf.Tensor) {
    return `a ${value.isDisposed ? 'disposed ' : ''}tensor [${value.shape}]`;
  }
  if (typeof value === 'object' && value !== null) {
    return Array.isArray(value) ? describeList(value) : 'an object';
  }
  return typeof value === 'string' ? JSON.stringify(shorten(value)) : shorten(String(value));
}

function describeList(list: readonly unknown[]): string {
  const short = list.length <= 8 && list.every((item) => ['number', 'string', 'boolean'].includes(typeof item));
  return short ? shorten(JSON.stringify(list)) : `a list of ${list.length}`;
}

function shorten(text: string): string {
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN - 3)}...` : text;
}

/** "one of 'a', 'b', 'c'" */
export function oneOf(choices: readonly unknown[]): string {
  return `one of ${choices.map((choice) => (typeof choice === 'string' ? `'${choice}'` : String(choice))).join(', ')}`;
}

/**
 * The library's one form of saying that a value cannot be used: "[where] name expects X, got Y".
 *
 * @param where the function, class or file that was given the value
 * @param got the value itself; it is described, and cut when long
 * @param ErrorClass ConfigError for what a file says
 */
export function invalid(
  where: string,
  name: string,
  expected: string,
  got: unknown,
  ErrorClass: new (message: string) => Error = InvalidArgumentError,
): Error {
  return new ErrorClass(`[${where}] ${name} expects ${expected}, got ${describe(got)}`);
}

/** @throws InvalidArgumentError unless `ok` */
export function expectThat(ok: boolean, where: string, name: string, expected: string, got: unknown): asserts ok {
  if (!ok) {
    throw invalid(where, name, expected, got);
  }
}

/**
 * Refuses names that do not exist, with the nearest that does.
 *
 * @throws InvalidArgumentError
 */
export function checkNames(where: string, given: Iterable<string>, known: readonly string[]): void {
  for (const name of given) {
    if (!known.includes(name)) {
      const near = nearestName(name, known);
      const advice = near === undefined ? `it takes ${known.join(', ')}` : `did you mean '${near}'?`;
      throw new InvalidArgumentError(`[${where}] there is no option ${describe(name)}; ${advice}`);
    }
  }
}

/**
 * The name that is the fewest edits away, where that is few enough to be a slip; else one that begins or ends with the
 * wanted name or that it begins or ends with ('torch_dtype': 'dtype'). Case and separators do not count.
 */
export function nearestName(name: string, names: readonly string[]): string | undefined {
  const plain = (text: string) =>
    text
      .slice(0, MAX_SHOWN)
      .toLowerCase()
      .replace(/[-_\s]/g, '');
  const wanted = plain(name);
  const [nearest] = names
    .map((candidate) => ({ candidate, distance: editDistance(wanted, plain(candidate)) }))
    .sort((a, b) => a.distance - b.distance);
  if (nearest && nearest.distance <= Math.max(1, Math.floor(wanted.length / 3))) {
    return nearest.candidate;
  }
  const holds = (a: string, b: string) => b.length >= MIN_HELD && (a.startsWith(b) || a.endsWith(b));
  return names.find((candidate) => holds(wanted, plain(candidate)) || holds(plain(candidate), wanted));
}

/** Levenshtein's distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}

/** @throws AbortedError when the signal has been given */
export function checkAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted) {
    throw new AbortedError(`${what} was stopped`, { cause: signal.reason });
  }
}
