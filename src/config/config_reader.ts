import { ConfigError } from '../errors.js';

/** Inclusive limits of a number. */
export interface NumberBounds {
  min?: number;
  max?: number;
}

function show(value: unknown): string {
  const text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function describe(kind: string, { min, max }: NumberBounds): string {
  if (min !== undefined && max !== undefined) {
    return `${kind} from ${min} to ${max}`;
  }
  return kind + (min === undefined ? '' : ` of at least ${min}`) + (max === undefined ? '' : ` of at most ${max}`);
}

const listOf = (kind: string, length?: number): string =>
  length === undefined ? `a list of ${kind}` : `a list of ${length} ${kind}`;
const within = (value: number, { min = -Infinity, max = Infinity }: NumberBounds): boolean =>
  value >= min && value <= max;
const isInt = (value: unknown, bounds: NumberBounds): value is number =>
  Number.isSafeInteger(value) && within(value as number, bounds);
const isNumber = (value: unknown, bounds: NumberBounds): value is number =>
  typeof value === 'number' && !Number.isNaN(value) && within(value, bounds);

/**
 * Typed access to a JSON configuration. A key that is absent or null takes the default; without a default it is an
 * error, as is a value of another type or out of bounds. `optional...` methods give null instead.
 * Every error is a ConfigError that names the file, the key, what was expected and what was found.
 */
export class ConfigReader {
  private readonly values: Readonly<Record<string, unknown>>;

  /**
   * @param json the parsed configuration, an object
   * @param source its file, for errors: 'unet/config.json'
   */
  constructor(
    json: unknown,
    readonly source: string,
  ) {
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      throw new ConfigError(`${source}: expected an object, got ${show(json)}`);
    }
    this.values = json as Record<string, unknown>;
  }

  /** The names of all keys. */
  keys(): string[] {
    return Object.keys(this.values);
  }

  /** Whether the key is there and not null. */
  has(name: string): boolean {
    return this.raw(name) !== null;
  }

  /** The value as it stands; null when it is absent. */
  raw(name: string): unknown {
    return Object.hasOwn(this.values, name) ? (this.values[name] ?? null) : null;
  }

  int(name: string, fallback?: number, bounds: NumberBounds = {}): number {
    return this.required(name, fallback, describe('an integer', bounds), (v) => isInt(v, bounds));
  }

  optionalInt(name: string, bounds: NumberBounds = {}): number | null {
    return this.has(name) ? this.int(name, undefined, bounds) : null;
  }

  number(name: string, fallback?: number, bounds: NumberBounds = {}): number {
    return this.required(name, fallback, describe('a number', bounds), (v) => isNumber(v, bounds));
  }

  optionalNumber(name: string, bounds: NumberBounds = {}): number | null {
    return this.has(name) ? this.number(name, undefined, bounds) : null;
  }

  bool(name: string, fallback?: boolean): boolean {
    return this.required(name, fallback, 'true or false', (v) => typeof v === 'boolean');
  }

  optionalBool(name: string): boolean | null {
    return this.has(name) ? this.bool(name) : null;
  }

  string(name: string, fallback?: string): string {
    return this.required(name, fallback, 'a string', (v) => typeof v === 'string');
  }

  optionalString(name: string): string | null {
    return this.has(name) ? this.string(name) : null;
  }

  oneOf<T extends string>(name: string, choices: readonly T[], fallback?: NoInfer<T>): T {
    const expected = `one of ${choices.map(show).join(', ')}`;
    return this.required(name, fallback, expected, (v) => choices.includes(v as T));
  }

  optionalOneOf<T extends string>(name: string, choices: readonly T[]): T | null {
    return this.has(name) ? this.oneOf(name, choices) : null;
  }

  /** A list of integers; `length` fixes how many. */
  intList(name: string, fallback?: readonly number[], bounds: NumberBounds & { length?: number } = {}): number[] {
    const expected = listOf('integers', bounds.length);
    return this.list(name, fallback, describe(expected, bounds), bounds.length, (v) => isInt(v, bounds));
  }

  /** A list of numbers; `length` fixes how many. */
  numberList(name: string, fallback?: readonly number[], bounds: NumberBounds & { length?: number } = {}): number[] {
    const expected = listOf('numbers', bounds.length);
    return this.list(name, fallback, describe(expected, bounds), bounds.length, (v) => isNumber(v, bounds));
  }

  optionalNumberList(name: string, bounds: NumberBounds & { length?: number } = {}): number[] | null {
    return this.has(name) ? this.numberList(name, undefined, bounds) : null;
  }

  /** A list of strings, each one of `choices` where given; `length` fixes how many. */
  stringList(
    name: string,
    fallback?: readonly string[],
    { length, choices }: { length?: number; choices?: readonly string[] } = {},
  ): string[] {
    const what = listOf('strings', length);
    const expected = choices ? `${what} out of ${choices.map(show).join(', ')}` : what;
    return this.list(name, fallback, expected, length, (v) => typeof v === 'string' && (choices?.includes(v) ?? true));
  }

  /** One integer for all of `length` places, or a list with one for each; always given as the list. */
  intOrList(name: string, length: number, fallback?: number | readonly number[], bounds: NumberBounds = {}): number[] {
    const value = this.required<number | readonly number[]>(
      name,
      fallback,
      `${describe('an integer', bounds)}, or a list of ${length} of them`,
      (v) => isInt(v, bounds) || (Array.isArray(v) && v.length === length && v.every((item) => isInt(item, bounds))),
    );
    return typeof value === 'number' ? new Array<number>(length).fill(value) : [...value];
  }

  /** One boolean for all of `length` places, or a list with one for each; always given as the list. */
  boolOrList(name: string, length: number, fallback?: boolean | readonly boolean[]): boolean[] {
    const value = this.required<boolean | readonly boolean[]>(
      name,
      fallback,
      `true or false, or a list of ${length} of them`,
      (v) =>
        typeof v === 'boolean' ||
        (Array.isArray(v) && v.length === length && v.every((item) => typeof item === 'boolean')),
    );
    return typeof value === 'boolean' ? new Array<boolean>(length).fill(value) : [...value];
  }

  /** A ConfigError about one key, for checks that only the reader of the configuration can make. */
  error(name: string, expected: string): ConfigError {
    return new ConfigError(`${this.source}: '${name}' must be ${expected}, got ${show(this.raw(name))}`);
  }

  private list<T extends string | number>(
    name: string,
    fallback: readonly T[] | undefined,
    expected: string,
    length: number | undefined,
    valid: (value: unknown) => boolean,
  ): T[] {
    return [
      ...this.required<readonly T[]>(
        name,
        fallback,
        expected,
        (v) => Array.isArray(v) && (length === undefined || v.length === length) && v.every(valid),
      ),
    ];
  }

  private required<T>(name: string, fallback: T | undefined, expected: string, valid: (value: unknown) => boolean): T {
    const value = this.raw(name);
    if (value === null) {
      if (fallback === undefined) {
        throw new ConfigError(`${this.source}: '${name}' is missing; it must be ${expected}`);
      }
      return fallback;
    }
    if (!valid(value)) {
      throw this.error(name, expected);
    }
    return value as T;
  }
}
