import { files } from '#platform';
import { ConfigError } from '../errors.js';
import { is } from '../utils/check.js';

/** Largest JSON file that is read; tokenizers with the largest vocabularies have a third of it. */
const MAX_JSON_BYTES = 100_000_000;

/** A string, also one that nothing ends, or an infinity outside of strings. */
const STRING_OR_INFINITY = /"[^"\\]*(?:\\[\s\S][^"\\]*)*(?:"|\\?$)|-?\bInfinity\b/g;

type ErrorClass = new (message: string, options?: ErrorOptions) => Error;

/** Reads JSON as Python writes it: JSON's grammar and the numbers Infinity and -Infinity. */
export function parsePythonJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const standard = text.replace(STRING_OR_INFINITY, (token) =>
      token.startsWith('"') ? token : token.replace('Infinity', '1e999'),
    );
    if (standard === text) {
      throw error;
    }
    return JSON.parse(standard);
  }
}

/**
 * Reads a text file (UTF-8).
 * @throws {ConfigError} or what is given, naming the file when it is missing, unreadable or no text
 */
export async function readText(path: string, Fault: ErrorClass = ConfigError): Promise<string> {
  let bytes: Uint8Array;
  try {
    bytes = await files.readBytes(path, MAX_JSON_BYTES);
  } catch (error) {
    const missing = (error as { code?: string }).code === 'ENOENT';
    const why = missing ? `there is no file ${path}` : `${path} cannot be read: ${(error as Error).message}`;
    throw new Fault(why, { cause: error });
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new Fault(`${path} is damaged: it is not UTF-8 text; download it again`, { cause: error });
  }
}

/**
 * Reads a JSON file (UTF-8; Infinity and -Infinity, which Python's json writes, are accepted).
 * @throws {ConfigError} or what is given, naming the file when it is missing, unreadable or not JSON
 */
export async function readJson(path: string, Fault: ErrorClass = ConfigError): Promise<unknown> {
  const text = await readText(path, Fault);
  try {
    return parsePythonJson(text);
  } catch (error) {
    const isPointer = text.startsWith('version https://git-lfs');
    const why = isPointer ? 'it is a git-lfs pointer, run `git lfs pull`' : (error as Error).message;
    throw new Fault(`${path} is not valid JSON: ${why}`, { cause: error });
  }
}

/** The same for a file that holds an object; undefined when there is no such file. */
export async function readJsonObject(
  path: string,
  Fault: ErrorClass = ConfigError,
): Promise<Record<string, unknown> | undefined> {
  if ((await files.kind(path)) === undefined) {
    return undefined;
  }
  const value = await readJson(path, Fault);
  if (!is.object(value)) {
    throw new Fault(`${path} expects a JSON object, got ${JSON.stringify(value).slice(0, 40)}`);
  }
  return value;
}

/**
 * JSON text as Python's `json.dumps(value, indent=2, sort_keys=True)` lays it out, infinities included.
 *
 * @param floats keys whose numbers Python knows as floats: 1 is written as 1.0, which tells the two types apart there
 */
export function stringifyPythonJson(value: unknown, floats: readonly string[] = []): string {
  const write = (item: unknown, indent: string): string => {
    const inner = `${indent}  `;
    if (typeof item === 'number' && !Number.isFinite(item)) {
      return Number.isNaN(item) ? 'NaN' : item > 0 ? 'Infinity' : '-Infinity';
    }
    if (Array.isArray(item)) {
      const items = item.map((each) => inner + write(each, inner));
      return items.length === 0 ? '[]' : `[\n${items.join(',\n')}\n${indent}]`;
    }
    if (typeof item === 'object' && item !== null) {
      const items = Object.entries(item)
        .filter(([, each]) => each !== undefined)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, each]) => {
          const point = floats.includes(key) && Number.isSafeInteger(each) ? '.0' : '';
          return `${inner}${JSON.stringify(key)}: ${write(each, inner)}${point}`;
        });
      return items.length === 0 ? '{}' : `{\n${items.join(',\n')}\n${indent}}`;
    }
    return JSON.stringify(item) ?? 'null';
  };
  return write(value, '');
}

/**
 * Writes a configuration as Python diffusers does: two spaces, keys sorted, a line end.
 * @throws {FileWriteError} when `path` cannot be written
 */
export async function writeJson(path: string, value: unknown, floats: readonly string[] = []): Promise<void> {
  await files.write(path, `${stringifyPythonJson(value, floats)}\n`);
}

export { ConfigReader } from './config_reader.js';
