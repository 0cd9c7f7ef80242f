import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { ConfigReader, parsePythonJson, readJson, writeJson } from '../../src/config/config.js';
import { ConfigError } from '../../src/errors.js';

const reader = (json: unknown): ConfigReader => new ConfigReader(json, 'unet/config.json');

describe('ConfigReader', () => {
  const config = reader({
    size: 64,
    rate: 0.5,
    flag: false,
    name: 'silu',
    heads: [5, 10],
    head: 8,
    betas: [0.1, 0.2],
    blocks: ['A', 'B'],
    only: [true, false],
    nothing: null,
    text: '64',
  });

  test('gives the values that are there', () => {
    expect(config.int('size', 1)).toBe(64);
    expect(config.number('rate')).toBe(0.5);
    expect(config.bool('flag', true)).toBe(false);
    expect(config.string('name')).toBe('silu');
    expect(config.oneOf('name', ['silu', 'gelu'])).toBe('silu');
    expect(config.intList('heads')).toEqual([5, 10]);
    expect(config.intOrList('heads', 2)).toEqual([5, 10]);
    expect(config.intOrList('head', 3)).toEqual([8, 8, 8]);
    expect(config.boolOrList('only', 2)).toEqual([true, false]);
    expect(config.boolOrList('flag', 2)).toEqual([false, false]);
    expect(config.optionalNumberList('betas')).toEqual([0.1, 0.2]);
    expect(config.stringList('blocks', undefined, { choices: ['A', 'B', 'C'] })).toEqual(['A', 'B']);
  });

  test('takes the default where a key is absent or null', () => {
    for (const name of ['absent', 'nothing']) {
      expect(config.int(name, 7)).toBe(7);
      expect(config.oneOf(name, ['a', 'b'], 'b')).toBe('b');
      expect(config.intOrList(name, 2, 3)).toEqual([3, 3]);
      expect(config.optionalInt(name)).toBeNull();
      expect(config.optionalNumber(name)).toBeNull();
      expect(config.optionalBool(name)).toBeNull();
      expect(config.optionalString(name)).toBeNull();
      expect(config.optionalNumberList(name)).toBeNull();
      expect(config.optionalOneOf(name, ['a'])).toBeNull();
      expect(config.has(name)).toBe(false);
    }
  });

  const bad: [string, () => unknown, string][] = [
    ['missing', () => config.int('absent'), "'absent' is missing; it must be an integer"],
    ['a string for a number', () => config.int('text', 1), `'text' must be an integer, got "64"`],
    ['a fraction for an integer', () => config.int('rate', 1), "'rate' must be an integer, got 0.5"],
    ['too small', () => config.int('size', 1, { min: 65 }), "'size' must be an integer of at least 65, got 64"],
    ['too large', () => config.number('size', 1, { min: 0, max: 1 }), "'size' must be a number from 0 to 1, got 64"],
    ['a number for a boolean', () => config.bool('size'), "'size' must be true or false, got 64"],
    ['an unknown choice', () => config.oneOf('name', ['relu']), `'name' must be one of "relu", got "silu"`],
    [
      'a short list',
      () => config.intOrList('heads', 3),
      "'heads' must be an integer, or a list of 3 of them, got [5,10]",
    ],
    ['a bad item', () => config.intList('betas'), "'betas' must be a list of integers, got [0.1,0.2]"],
    [
      'an item too small',
      () => config.intList('heads', [], { min: 6 }),
      "'heads' must be a list of integers of at least 6",
    ],
    [
      'an unknown item',
      () => config.stringList('blocks', [], { length: 2, choices: ['A'] }),
      `'blocks' must be a list of 2 strings out of "A", got ["A","B"]`,
    ],
    ['an inherited name', () => config.string('toString'), "'toString' is missing"],
    ['a list for the whole', () => reader([1]), 'expected an object, got [1]'],
  ];
  test.each(bad)('%s', (_, act, message) => {
    expect(act).toThrow(ConfigError);
    expect(act).toThrow(`unet/config.json: ${message}`);
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
