import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { ConfigReader, parsePythonJson, readJson, writeJson } from '../../src/config/config.js';
import { ConfigError } from '../../src/errors.js';

const reader = (json: unknown): ConfigReader => new ConfigReader(json, 'unet/config.json');

describe('ConfigReader', () => {
  const config = reader({ name: 'silu', heads: [5, 10], nothing: null });

  test('gives the values that are there', () => {
    expect(config.keys()).toEqual(['name', 'heads', 'nothing']);
    expect(config.raw('heads')).toEqual([5, 10]);
    expect(config.string('name', 'gelu')).toBe('silu');
    for (const name of ['absent', 'nothing', 'toString']) {
      expect(config.raw(name)).toBeNull();
      expect(config.string(name, 'gelu')).toBe('gelu');
    }
  });

  test('says what was expected and what came', () => {
    expect(() => config.string('heads', '')).toThrow(ConfigError);
    expect(() => config.string('heads', '')).toThrow('[unet/config.json] heads expects a string, got [5,10]');
    expect(() => reader([1])).toThrow('[unet/config.json] the file expects an object, got [1]');
    expect(() => reader([1])).toThrow(ConfigError);
  });
});

describe('JSON files', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'config-'));
  });
  afterEach(() => rm(dir, { recursive: true }));

  test('infinities as Python writes them, but not inside strings', () => {
    expect(
      parsePythonJson('{"min": -Infinity, "max":Infinity, "s": "-Infinity \\" Infinity", "l": [Infinity]}'),
    ).toEqual({
      min: -Infinity,
      max: Infinity,
      s: '-Infinity " Infinity',
      l: [Infinity],
    });
    expect(() => parsePythonJson('{"a": Infinityy}')).toThrow(SyntaxError);
  });

  test('are written as Python diffusers writes them and read back', async () => {
    const path = join(dir, 'config.json');
    await writeJson(path, {
      b: [1, 2.5],
      a: { z: null, y: 'ü"' },
      empty: [],
      none: {},
      low: -Infinity,
      gone: undefined,
    });
    expect(await readFile(path, 'utf8')).toBe(
      '{\n  "a": {\n    "y": "ü\\"",\n    "z": null\n  },\n  "b": [\n    1,\n    2.5\n  ],\n  "empty": [],\n  "low": -Infinity,\n  "none": {}\n}\n',
    );
    expect(await readJson(path)).toEqual({ a: { y: 'ü"', z: null }, b: [1, 2.5], empty: [], low: -Infinity, none: {} });
  });

  test('missing or damaged', async () => {
    const path = join(dir, 'config.json');
    await expect(readJson(path)).rejects.toThrow(`there is no file ${path}`);
    await writeFile(path, '{"a": ');
    await expect(readJson(path)).rejects.toThrow(`${path} is not valid JSON`);
    await expect(readJson(dir)).rejects.toThrow(`${dir} cannot be read`);
  });
});
