import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { CheckpointError } from '../../src/errors.js';
import { openStateDict, writeSafetensors } from '../../src/loaders/safetensors/index.js';
import { decodeToFloat32, renameKeys, type StateDict } from '../../src/loaders/state_dict.js';
import { setWarningHandler } from '../../src/utils/logging.js';

let dir: string;
let warnings: string[];
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weights-'));
  warnings = [];
  setWarningHandler((message) => warnings.push(message));
});
afterEach(async () => {
  setWarningHandler(null);
  await rm(dir, { recursive: true });
});

/** Writes one scalar per name; its value tells from which file it was read. */
const write = (file: string, tensors: Record<string, number>): Promise<void> =>
  writeSafetensors(
    join(dir, file),
    Object.entries(tensors).map(([name, value]) => ({
      name,
      dtype: 'F32',
      shape: [],
      data: () => new Uint8Array(Float32Array.of(value).buffer),
    })),
  );

const writeIndex = (file: string, weight_map: unknown): Promise<void> =>
  writeFile(join(dir, file), JSON.stringify({ metadata: { total_size: 8 }, weight_map }));

async function values(dict: StateDict): Promise<Record<string, number>> {
  const all: Record<string, number> = {};
  for (const key of dict.keys()) {
    all[key] = decodeToFloat32(await dict.read(key), dict.info(key)!.dtype)[0]!;
  }
  await dict.close();
  return all;
}

describe('openStateDict', () => {
  test('prefers the variant, one file before shards, and says when there is none', async () => {
    await write('model.safetensors', { a: 1 });
    expect(await values(await openStateDict(dir, 'model'))).toEqual({ a: 1 });
    expect(warnings).toEqual([]);
    expect(await values(await openStateDict(dir, 'model', { variant: 'fp16' }))).toEqual({ a: 1 });
    expect(warnings).toEqual([`${dir} has no weights of variant 'fp16'; taking model.safetensors`]);
    await write('model.fp16.safetensors', { a: 2 });
    expect(await values(await openStateDict(dir, 'model', { variant: 'fp16' }))).toEqual({ a: 2 });
    expect(await values(await openStateDict(dir, 'model'))).toEqual({ a: 1 });
    expect(warnings).toHaveLength(1);
  });

  test.each([
    ['model.safetensors.index.json', 'model-0000N-of-00002.safetensors', undefined],
    ['model.safetensors.index.fp16.json', 'model.fp16-0000N-of-00002.safetensors', 'fp16'],
  ])('reads shards under %s', async (index, pattern, variant) => {
    const [one, two] = [pattern.replace('N', '1'), pattern.replace('N', '2')];
    await write(one, { a: 1, c: 3 });
    await write(two, { b: 2 });
    await writeIndex(index, { a: one, b: two, c: one });
    const dict = await openStateDict(dir, 'model', { variant });
    expect(dict.info('b')).toEqual({ dtype: 'F32', shape: [] });
    expect(dict.info('d')).toBeUndefined();
    await expect(dict.read('d')).rejects.toThrow("there is no tensor 'd'");
    expect(await values(dict)).toEqual({ a: 1, b: 2, c: 3 });
    expect(warnings).toEqual([]);
    await expect(dict.read('a')).rejects.toThrow('after the file was closed');
  });

  test.each<[string, unknown, string]>([
    ['without a map', undefined, "expected an object 'weight_map'"],
    ['with a list for a map', [], "expected an object 'weight_map'"],
    ['that leads elsewhere', { a: '../model.safetensors' }, `tensor 'a' is mapped to "../model.safetensors"`],
    ['with another kind of file', { a: 'model.bin' }, `tensor 'a' is mapped to "model.bin"`],
    ['with a number for a file', { a: 1 }, "tensor 'a' is mapped to 1"],
    ['of shards that are missing', { a: 's1.safetensors', b: 's3.safetensors' }, 'shards are missing: s3.safetensors'],
    ['with a tensor too many', { a: 's1.safetensors', b: 's1.safetensors' }, "'b' is not in s1.safetensors"],
    ['with a tensor too few', { b: 's2.safetensors' }, "'c' of s2.safetensors is not in the index"],
    ['with tensors swapped', { a: 's2.safetensors', b: 's1.safetensors' }, "'a' is not in s2.safetensors"],
  ])('refuses an index %s', async (_, map, message) => {
    await write('s1.safetensors', { a: 1 });
    await write('s2.safetensors', { b: 2, c: 3 });
    await writeIndex('model.safetensors.index.json', map);
    await expect(openStateDict(dir, 'model')).rejects.toThrow(CheckpointError);
    await expect(openStateDict(dir, 'model')).rejects.toThrow(message);
  });

  test('only pickled weights', async () => {
    await writeFile(join(dir, 'pytorch_model.bin'), '');
    await expect(openStateDict(dir, 'model')).rejects.toThrow(
      `'${dir}' has no model.safetensors or model.safetensors.index.json, only pytorch_model.bin, a Python pickle`,
    );
  });

  test('only weights of a variant', async () => {
    await write('model.fp16.safetensors', { a: 1 });
    await expect(openStateDict(dir, 'model')).rejects.toThrow("only of variant 'fp16'; pass {variant: 'fp16'}");
  });

  test('no weights, no directory', async () => {
    await expect(openStateDict(dir, 'model')).rejects.toThrow('it holds nothing');
    await writeFile(join(dir, 'config.json'), '{}');
    await expect(openStateDict(dir, 'model')).rejects.toThrow('it holds config.json');
    await expect(openStateDict(join(dir, 'unet'), 'model')).rejects.toThrow('is not a directory with weights');
  });
});

describe('renameKeys', () => {
  test('renames, drops and closes', async () => {
    await write('model.safetensors', { 'text_model.a': 1, position_ids: 0, b: 2 });
    const dict = await openStateDict(dir, 'model');
    const renamed = renameKeys(dict, (key) => (key === 'position_ids' ? null : key.replace('text_model.', '')));
    expect(renamed.keys().sort()).toEqual(['a', 'b']);
    expect(renamed.info('text_model.a')).toBeUndefined();
    await expect(renamed.read('position_ids')).rejects.toThrow("no tensor 'position_ids'");
    expect(await values(renamed)).toEqual({ a: 1, b: 2 });
    await expect(dict.read('b')).rejects.toThrow('after the file was closed');
  });

  test('refuses to give two tensors one name', async () => {
    await write('model.safetensors', { 'x.a': 1, 'y.a': 2 });
    const dict = await openStateDict(dir, 'model');
    expect(() => renameKeys(dict, (key) => key.slice(2))).toThrow(
      "tensors 'x.a' and 'y.a' of the checkpoint both become 'a'",
    );
    await dict.close();
  });
});
