import { ConfigError } from '../errors.js';
import { invalid, is } from '../utils/check.js';

/**
 * Access to a JSON file whose names are not known beforehand, such as model_index.json; one whose names are known is a table
 * of fields (fields.ts). Every error is a ConfigError that names the file, the key, what was expected and what was found.
 */
export class ConfigReader {
  private readonly values: Readonly<Record<string, unknown>>;

  /**
   * @param json the parsed file, an object
   * @param source its path, for errors: 'unet/config.json'
   */
  constructor(
    json: unknown,
    readonly source: string,
  ) {
    if (!is.object(json)) {
      throw invalid(source, 'the file', 'an object', json, ConfigError);
    }
    this.values = json;
  }

  /** The names of all keys. */
  keys(): string[] {
    return Object.keys(this.values);
  }

  /** The value as it stands; null when it is absent. */
  raw(name: string): unknown {
    return Object.hasOwn(this.values, name) ? (this.values[name] ?? null) : null;
  }

  /** A text; `fallback` where the key is absent or null. */
  string(name: string, fallback: string): string {
    const value = this.raw(name) ?? fallback;
    if (!is.string(value)) {
      throw this.error(name, 'a string');
    }
    return value;
  }

  /** A ConfigError about one key, for checks that only the reader of the file can make. */
  error(name: string, expected: string): ConfigError {
    return invalid(this.source, name, expected, this.raw(name), ConfigError);
  }
}
