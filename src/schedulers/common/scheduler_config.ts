import { InvalidArgumentError } from '../../errors.js';

/** A scheduler_config.json as it is: snake_case keys, and keys of other schedulers among them. */
export type SchedulerConfigJson = Readonly<Record<string, unknown>>;

/** One entry of a configuration: its default and how a given value is checked. */
export interface Field<T> {
  readonly default: T;
  /** Returns the value to use, or undefined when `value` is none that the field can hold. */
  parse(value: unknown): T | undefined;
  /** What values there are, for error messages. */
  readonly expected: string;
}

export type Fields = Readonly<Record<string, Field<unknown>>>;

/** The values of a configuration, by diffusers' snake_case names. */
export type ConfigOf<F extends Fields> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

type CamelCase<S> = S extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<CamelCase<Tail>>}` : S;
/** Constructor options: any of a configuration's entries, in snake_case or camelCase. */
export type OptionsOf<F extends Fields> = Partial<ConfigOf<F>> & {
  readonly [K in keyof F as CamelCase<K>]?: ConfigOf<F>[K];
};

const isNumber = (value: unknown): value is number => typeof value === 'number' && !Number.isNaN(value);

/** A finite number. JSON's null means the default. */
export function number(defaultValue: number): Field<number> {
  return {
    default: defaultValue,
    expected: 'a finite number',
    parse: (value) => (value === null ? defaultValue : isNumber(value) && Number.isFinite(value) ? value : undefined),
  };
}

/** A number that may be infinite: JSON has no infinity, so null and Python's spelled-out ones are taken for it. */
export function extendedNumber(defaultValue: number): Field<number> {
  const spelled: Record<string, number> = { '-Infinity': -Infinity, Infinity, '-inf': -Infinity, inf: Infinity };
  return {
    default: defaultValue,
    expected: 'a number',
    parse: (value) => {
      const resolved = typeof value === 'string' ? spelled[value] : value;
      return resolved === null ? defaultValue : isNumber(resolved) ? resolved : undefined;
    },
  };
}

export function integer(defaultValue: number, min = -Infinity): Field<number> {
  return {
    default: defaultValue,
    expected: min === -Infinity ? 'an integer' : `an integer of at least ${min}`,
    parse: (value) =>
      value === null
        ? defaultValue
        : Number.isSafeInteger(value) && (value as number) >= min
          ? (value as number)
          : undefined,
  };
}

export function flag(defaultValue: boolean): Field<boolean> {
  return {
    default: defaultValue,
    expected: 'true or false',
    parse: (value) => (value === null ? false : typeof value === 'boolean' ? value : undefined),
  };
}

export function choice<T extends string>(defaultValue: T, values: readonly T[]): Field<T> {
  return {
    default: defaultValue,
    expected: `one of ${values.map((v) => `"${v}"`).join(', ')}`,
    parse: (value) => (value === null ? defaultValue : values.find((v) => v === value)),
  };
}

/** A value that may be absent (null). */
export function optional<T>(field: Field<T>): Field<T | null> {
  return {
    default: null,
    expected: `${field.expected}, or null`,
    parse: (value) => (value === null ? null : field.parse(value)),
  };
}

export const numbers: Field<readonly number[]> = {
  default: [],
  expected: 'a list of finite numbers',
  parse: (value) => {
    const list = Array.isArray(value) ? value : ArrayBuffer.isView(value) ? Array.from(value as Float32Array) : [NaN];
    return list.every(Number.isFinite) ? list : undefined;
  },
};

const DEFAULTED = '_use_default_values';

export function toSnakeCase(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Options with their camelCase keys turned into diffusers' snake_case; entries that are undefined are left out. */
export function snakeCased(options: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(options)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [toSnakeCase(key), value]),
  );
}

/**
 * A scheduler's configuration from constructor options: checked values, defaults for the rest, and the names of the
 * defaulted entries under `_use_default_values`, so that another scheduler made from it uses its own defaults there.
 * @throws InvalidArgumentError for a value that its field cannot hold, or a name that is no field.
 */
export function resolveConfig<F extends Fields>(className: string, fields: F, options: object): ConfigOf<F> {
  const given = snakeCased(options);
  const unknown = Object.keys(given).filter((key) => !key.startsWith('_') && !(key in fields));
  if (unknown.length > 0) {
    throw new InvalidArgumentError(
      `[${className}] has no option ${unknown.join(', ')}; it takes ${Object.keys(fields).join(', ')} ` +
        '(fromConfig ignores what it does not know)',
    );
  }
  const config: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(fields)) {
    const value = key in given ? field.parse(given[key]) : field.default;
    if (value === undefined) {
      throw new InvalidArgumentError(`[${className}] ${key} expects ${field.expected}, got ${show(given[key])}`);
    }
    config[key] = value;
  }
  const defaulted = Object.keys(fields).filter((key) => !(key in given));
  return { ...config, ...(defaulted.length > 0 ? { [DEFAULTED]: defaulted } : {}) } as ConfigOf<F>;
}

/**
 * Splits a configuration, which may be another class's, into the options of a class with these `fields` and the other
 * entries, which are carried along (`ConfigMixin.extract_init_dict` of diffusers/configuration_utils.py).
 */
export function extractOptions(
  fields: Fields,
  json: SchedulerConfigJson,
  overrides: object,
): { options: Record<string, unknown>; hidden: Record<string, unknown> } {
  const defaulted = new Set(Array.isArray(json[DEFAULTED]) ? json[DEFAULTED] : []);
  const given = Object.entries(json).filter(([key]) => key !== DEFAULTED && !defaulted.has(key));
  const isOption = ([key]: [string, unknown]): boolean => key in fields;
  return {
    options: Object.fromEntries([...given, ...Object.entries(snakeCased(overrides))].filter(isOption)),
    hidden: Object.fromEntries(given.filter((entry) => !isOption(entry))),
  };
}

/** A configuration without the notes that it carries between classes in memory. */
export function withoutNotes(config: SchedulerConfigJson): Record<string, unknown> {
  return Object.fromEntries(Object.entries(config).filter(([key]) => key !== DEFAULTED));
}

function show(value: unknown): string {
  const text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
