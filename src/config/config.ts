import { readFile } from 'node:fs/promises';
import { ConfigError } from '../errors.js';
import { writeFileAtomically } from '../utils/files.js';

/** Reads JSON as Python writes it: JSON's grammar and the numbers Infinity and -Infinity. */
export function parsePythonJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const standard = text.replace(/"[^"\\]*(?:\\.[^"\\]*)*"|-?\bInfinity\b/g, (token) =>
      token.startsWith('"') ? token : token.replace('Infinity', '1e999'),
    );
    if (standard === text) {
      throw error;
    }
    return JSON.parse(standard);
  }
}

/**
 * Reads a JSON file (UTF-8; Infinity and -Infinity, which Python's json writes, are accepted).
 * @throws {ConfigError} naming the file when it is missing, unreadable or not JSON
 */
export async function readJson(path: string): Promise<unknown> {
  let text: string;
  try {
    text = (await readFile(path, 'utf8')).replace(/^\uFEFF/, '');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new ConfigError(
      missing ? `there is no file ${path}` : `${path} cannot be read: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
  try {
    return parsePythonJson(text);
  } catch (error) {
    throw new ConfigError(`${path} is not valid JSON: ${(error as Error).message}`, { cause: error });
  }
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
  await writeFileAtomically(path, `${stringifyPythonJson(value, floats)}\n`);
}

export { ConfigReader, type NumberBounds } from './config_reader.js';
