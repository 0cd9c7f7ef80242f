import { ConfigError } from '../errors.js';
import { checkNames, describe, invalid, is, oneOf } from '../utils/check.js';
import { warn } from '../utils/logging.js';

/** One entry of a configuration: its default and how a given value is checked. */
export interface Field<T> {
  readonly default: T;
  /** What values there are, for error messages. */
  readonly expected: string;
  /** The value to use, or undefined when the field cannot hold `value`. */
  parse(value: unknown): T | undefined;
}

export type Fields = Readonly<Record<string, Field<unknown>>>;

/** The values of a configuration, by their snake_case names. */
export type ConfigOf<F extends Fields> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

type CamelCase<S> = S extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<CamelCase<Tail>>}` : S;
/** The same values under camelCase names. */
export type CamelCased<C> = { readonly [K in keyof C as CamelCase<K>]: C[K] };
/** Any of a configuration's entries, in snake_case or camelCase. */
export type OptionsOf<C> = Partial<C> & Partial<CamelCased<C>>;

/** Inclusive limits of a number. */
export interface Bounds {
  min?: number;
  max?: number;
}

const isWithin = (value: number, { min = -Infinity, max = Infinity }: Bounds): boolean => value >= min && value <= max;

function bounded(kind: string, { min, max }: Bounds): string {
  if (min !== undefined && max !== undefined) {
    return `${kind} from ${min} to ${max}`;
  }
  return kind + (min === undefined ? '' : ` of at least ${min}`) + (max === undefined ? '' : ` of at most ${max}`);
}

/** A field whose null, which Python writes for None, means the default. */
function field<T>(defaultValue: T, expected: string, holds: (value: unknown) => value is T): Field<T> {
  return {
    default: defaultValue,
    expected,
    parse: (value) => (value === null ? defaultValue : holds(value) ? value : undefined),
  };
}

/** A finite number. */
export function number(defaultValue: number, bounds: Bounds = {}): Field<number> {
  const holds = (value: unknown): value is number => is.number(value) && isWithin(value, bounds);
  return field(defaultValue, bounded('a finite number', bounds), holds);
}

const SPELLED: Readonly<Record<string, number>> = {
  '-Infinity': -Infinity,
  Infinity,
  '-inf': -Infinity,
  inf: Infinity,
};

/** A number that may be infinite: JSON has no infinity, so null and Python's spelled-out ones are taken for it. */
export function extendedNumber(defaultValue: number): Field<number> {
  const holds = (value: unknown): value is number => typeof value === 'number' && !Number.isNaN(value);
  const plain = field(defaultValue, 'a number', holds);
  return { ...plain, parse: (value) => plain.parse(typeof value === 'string' ? SPELLED[value] : value) };
}

export function integer(defaultValue: number, bounds: Bounds = {}): Field<number> {
  const holds = (value: unknown): value is number => is.integer(value) && isWithin(value, bounds);
  return field(defaultValue, bounded('an integer', bounds), holds);
}

/** 1, 2, ... `max`: nothing that is counted is without an end, because memory and time are not. */
export function count(defaultValue: number, max: number): Field<number> {
  return integer(defaultValue, { min: 1, max });
}

/** True or false; null is false, as None is in Python. */
export function flag(defaultValue: boolean): Field<boolean> {
  return {
    default: defaultValue,
    expected: 'true or false',
    parse: (value) => (value === null ? false : is.boolean(value) ? value : undefined),
  };
}

export function choice<const T extends string>(defaultValue: NoInfer<T>, values: readonly T[]): Field<T> {
  return field<T>(defaultValue, oneOf(values), (value): value is T => is.oneOf(values, value));
}

/** A value that may be absent (null). */
export function optional<T>(inner: Field<T>, defaultValue: T | null = null): Field<T | null> {
  return {
    default: defaultValue,
    expected: `${inner.expected}, or null`,
    parse: (value) => (value === null ? null : inner.parse(value)),
  };
}

/** A list, or typed array, of 1 to `max` items. */
export function list<T>(item: Field<T>, defaultValue: readonly T[], max: number, min = 1): Field<readonly T[]> {
  return {
    default: defaultValue,
    expected: `a list of ${min} to ${max} entries, each ${item.expected}`,
    parse: (value) => (value === null ? defaultValue : parseList(item, value, min, max)),
  };
}

function parseList<T>(item: Field<T>, value: unknown, min: number, max: number): readonly T[] | undefined {
  const given: readonly unknown[] = is.numbers(value) ? Array.from(value) : Array.isArray(value) ? value : [];
  if (given.length < min || given.length > max || (given.length === 0 && !Array.isArray(value))) {
    return undefined;
  }
  const items = Array.from(given, (entry) => (entry === null ? undefined : item.parse(entry)));
  return items.some((entry) => entry === undefined) ? undefined : (items as T[]);
}

/** One value for all places, or a list of up to `max` with one for each. */
export function oneOrList<T>(item: Field<T>, max: number): Field<T | readonly T[]> {
  const many = list(item, [], max);
  return {
    default: item.default,
    expected: `${item.expected}, or a list of them`,
    parse: (value) => (Array.isArray(value) ? many.parse(value) : item.parse(value)),
  };
}

/** An entry that changes numbers and of which only diffusers' default is built. */
export function only<T extends string | number | boolean | null>(defaultValue: T): Field<T> {
  return {
    default: defaultValue,
    expected: `${typeof defaultValue === 'string' ? `'${defaultValue}'` : defaultValue} (nothing else is supported)`,
    parse: (value) => (value === null || value === defaultValue ? defaultValue : undefined),
  };
}

type ErrorClass = new (message: string) => Error;

/** The values that `given` and the defaults make. @throws an ErrorClass that names the entry, what was expected and what came */
export function readFields<F extends Fields>(
  where: string,
  fields: F,
  given: Readonly<Record<string, unknown>>,
  errors?: ErrorClass,
): ConfigOf<F> {
  const values: Record<string, unknown> = {};
  for (const [name, { default: fallback, expected, parse }] of Object.entries(fields)) {
    const value = Object.hasOwn(given, name) && given[name] !== undefined ? parse(given[name]) : fallback;
    if (value === undefined) {
      throw invalid(where, name, expected, given[name], errors);
    }
    values[name] = value;
  }
  return values as ConfigOf<F>;
}

/** @throws InvalidArgumentError for a name that none of the fields has, with the nearest that one has */
export function checkFieldNames(where: string, fields: Fields, given: Readonly<Record<string, unknown>>): void {
  const names = Object.keys(given).filter((name) => !name.startsWith('_'));
  checkNames(where, names, Object.keys(fields));
}

const warned = new Set<string>();

/** Warns, once per name, of entries that neither the fields nor `silent` (entries without effect) know. */
export function warnOfUnknown(
  where: string,
  known: { has(name: string): boolean },
  json: Readonly<Record<string, unknown>>,
): void {
  for (const name of Object.keys(json)) {
    if (!name.startsWith('_') && !known.has(name) && !warned.has(name)) {
      warned.add(name);
      warn(`[${where}] the entry ${describe(name)} is not known and has no effect`);
    }
  }
}

/**
 * The configuration of a model from its config.json.
 *
 * @param silent names that have no effect on what the model computes
 * @returns its values under camelCase names
 * @throws ConfigError for a value that a field cannot hold
 */
export function readConfig<F extends Fields>(
  source: string,
  fields: F,
  silent: readonly string[],
  json: unknown,
): CamelCased<ConfigOf<F>> {
  if (!is.object(json)) {
    throw invalid(source, 'the file', 'an object', json, ConfigError);
  }
  const values = readFields(source, fields, json, ConfigError);
  warnOfUnknown(source, new Set([...Object.keys(fields), ...silent]), json);
  return camelCased(values);
}

function camelCased<C extends object>(values: C): CamelCased<C> {
  const name = (key: string): string => key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [name(key), value])) as CamelCased<C>;
}

export function toSnakeCase(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Options with their camelCase keys turned into snake_case; entries that are undefined are left out. */
export function snakeCased(options: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(options)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [toSnakeCase(key), value]),
  );
}
