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

/** JSON text as Python's `json.dumps(value, indent=2, sort_keys=True)` lays it out, infinities included. */
export function stringifyPythonJson(value: unknown, indent = ''): string {
  const inner = `${indent}  `;
  if (typeof value === 'number' && !Number.isFinite(value)) {
    return Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity';
  }
  if (Array.isArray(value)) {
    const items = value.map((item) => inner + stringifyPythonJson(item, inner));
    return items.length === 0 ? '[]' : `[\n${items.join(',\n')}\n${indent}]`;
  }
  if (typeof value === 'object' && value !== null) {
    const items = Object.entries(value)
      .filter(([, item]) => item !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => `${inner}${JSON.stringify(key)}: ${stringifyPythonJson(item, inner)}`);
    return items.length === 0 ? '{}' : `{\n${items.join(',\n')}\n${indent}}`;
  }
  return JSON.stringify(value) ?? 'null';
}

/**
 * Writes a configuration as Python diffusers does: two spaces, keys sorted, a line end.
 * @throws {FileWriteError} when `path` cannot be written
 */
export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFileAtomically(path, `${stringifyPythonJson(value)}\n`);
}

export { ConfigReader, type NumberBounds } from './config_reader.js';
