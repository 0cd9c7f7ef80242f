import { mkdir, mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { CheckpointError, FileWriteError, InvalidArgumentError } from '../../src/errors.js';
import { openSafetensors, type SafetensorsEntry, writeSafetensors } from '../../src/loaders/safetensors/index.js';
import { decodeToFloat32 } from '../../src/loaders/safetensors/number_formats.js';

let dir: string;
let path: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'safetensors-'));
  path = join(dir, 'model.safetensors');
});
afterEach(() => rm(dir, { recursive: true }));

/** A file with the given header text (or its bytes) and data. */
function file(header: string | object | Uint8Array, dataBytes = 0, length?: bigint): Buffer {
  const text =
    header instanceof Uint8Array ? header : Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length ?? BigInt(text.length));
  return Buffer.concat([prefix, text, Buffer.alloc(dataBytes)]);
}

const tensor = (dtype: unknown, shape: unknown, data_offsets: unknown): object => ({ dtype, shape, data_offsets });
const floats = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
const entry = (
  name: string,
  dtype: SafetensorsEntry['dtype'],
  shape: number[],
  data: Uint8Array,
): SafetensorsEntry => ({
  name,
  dtype,
  shape,
  data: () => data,
});

describe('openSafetensors', () => {
  test('reads what Python wrote', async () => {
    const dict = await openSafetensors('weights/tiny-shapes/text_encoder/model.safetensors');
    const key = dict.keys().find((name) => name.endsWith('final_layer_norm.weight'))!;
    expect(dict.info(key)).toEqual({ dtype: 'F16', shape: [128] });
    const bytes = await dict.read(key);
    expect(bytes.byteLength).toBe(256);
    expect(bytes.byteOffset).toBe(0);
    expect(bytes.buffer.byteLength).toBe(256);
    const whole = await readFile(dict.path);
    expect(whole.indexOf(bytes)).toBeGreaterThan(0);
    await dict.close();
  });

  test('tensors of every kind, an empty one and a scalar', async () => {
    const header = {
      __metadata__: { format: 'pt' },
      scalar: tensor('F32', [], [8, 12]),
      empty: tensor('F16', [2, 0, 3], [12, 12]),
      ids: tensor('I64', [1], [0, 8]),
      flags: tensor('BOOL', [3], [12, 15]),
    };
    await writeFile(path, file(header, 15));
    const dict = await openSafetensors(path);
    expect(dict.metadata).toEqual({ format: 'pt' });
    expect(dict.keys()).toEqual(['ids', 'scalar', 'empty', 'flags']);
    expect((await dict.read('empty')).byteLength).toBe(0);
    expect((await dict.read('scalar')).byteLength).toBe(4);
    expect(dict.info('nothing')).toBeUndefined();
    await expect(dict.read('nothing')).rejects.toThrow(`${path}: there is no tensor 'nothing'`);
    await dict.close();
  });

  test('a name like a property of every object is a name', async () => {
    await writeFile(path, file('{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1));
    const dict = await openSafetensors(path);
    expect(dict.keys()).toEqual(['__proto__']);
    expect(dict.info('toString')).toBeUndefined();
    await dict.close();
  });

  test('reading after closing is an error, closing twice is none', async () => {
    await writeFile(path, file({ a: tensor('U8', [1], [0, 1]) }, 1));
    const dict = await openSafetensors(path);
    await dict.close();
    await dict.close();
    await expect(dict.read('a')).rejects.toThrow(`${path}: tensor 'a' is read after the file was closed`);
  });

  test('a file cut off after it was opened', async () => {
    await writeFile(path, file({ a: tensor('U8', [100], [0, 100]) }, 100));
    const dict = await openSafetensors(path);
    await truncate(path, 80);
    await expect(dict.read('a')).rejects.toThrow(/tensor 'a' cannot be read: the file ended after \d+ of 100 bytes/);
    await dict.close();
  });

  const ok = tensor('F32', [2], [0, 8]);
  const hostile: [string, Buffer, string][] = [
    ['nothing at all', Buffer.alloc(0), 'at least 8 bytes, this one has 0'],
    ['seven bytes', Buffer.alloc(7), 'at least 8 bytes, this one has 7'],
    ['a header of 2^60 bytes', file('{}', 0, 2n ** 60n), 'the header would be 1152921504606846976 bytes long'],
    [
      'a header of 2^64 - 1 bytes',
      file('{}', 0, 2n ** 64n - 1n),
      'the header would be 18446744073709551615 bytes long',
    ],
    ['a header longer than the file', file('{}', 0, 3n), 'the header is 3 bytes long, but only 2 bytes follow'],
    ['an empty header', file(''), 'the header is not JSON'],
    ['text instead of JSON', file('<html>'), 'the header is not JSON'],
    ['bytes that are not UTF-8', file(Buffer.from([0x7b, 0xff, 0x7d])), 'the header is not JSON'],
    ['a pickle', Buffer.from('\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M', 'latin1'), 'the header would be'],
    ['deep nesting', file('['.repeat(1_000_000)), 'the header is not JSON'],
    ['a list', file('[]'), 'the header is not a JSON object'],
    ['null', file('null'), 'the header is not a JSON object'],
    ['a name twice', file(`{"a":${JSON.stringify(ok)},"a":${JSON.stringify(ok)}}`, 8), "the key 'a' twice"],
    ['a name twice, once escaped', file(`{"a":${JSON.stringify(ok)},"\\u0061":null}`, 8), "the key 'a' twice"],
    ['a field twice', file('{"a":{"dtype":"U8","shape":[1],"shape":[8],"data_offsets":[0,8]}}', 8), "'shape' twice"],
    ['metadata that is not text', file({ __metadata__: { a: 1 } }), '__metadata__ must map names to strings'],
    ['a tensor that is no object', file({ a: 3 }), "tensor 'a' must be described by an object"],
    ['an unknown dtype', file({ a: tensor('F4', [2], [0, 2]) }, 2), `tensor 'a' has dtype "F4"; expected one of`],
    ['an inherited dtype', file({ a: tensor('toString', [2], [0, 2]) }, 2), `tensor 'a' has dtype "toString"`],
    ['no dtype', file({ a: { shape: [], data_offsets: [0, 4] } }, 4), "tensor 'a' has dtype undefined"],
    ['the wrong dtype', file({ a: tensor('F16', [2], [0, 8]) }, 8), 'of shape [2] in F16 takes 4 bytes, but'],
    ['a negative size', file({ a: tensor('F32', [-2, -1], [0, 8]) }, 8), 'has shape [-2,-1]; expected a list of sizes'],
    ['a fractional size', file({ a: tensor('F32', [0.5], [0, 2]) }, 2), 'has shape [0.5]'],
    ['no shape', file({ a: tensor('F32', null, [0, 4]) }, 4), 'has shape null'],
    ['a size beyond all numbers', file({ a: tensor('F32', [2 ** 50, 2 ** 50], [0, 8]) }, 8), 'takes 5.07'],
    ['a wrong shape', file({ a: tensor('F32', [3], [0, 8]) }, 8), 'of shape [3] in F32 takes 12 bytes'],
    ['negative offsets', file({ a: tensor('F32', [2], [-8, 0]) }, 8), 'has data_offsets [-8,0]'],
    ['offsets back to front', file({ a: tensor('F32', [2], [8, 0]) }, 8), 'has data_offsets [8,0]'],
    ['one offset', file({ a: tensor('F32', [2], [8]) }, 8), 'has data_offsets [8]'],
    ['offsets as text', file({ a: tensor('F32', [2], ['0', '8']) }, 8), 'has data_offsets ["0","8"]'],
    ['a truncated file', file({ a: ok, b: tensor('F32', [2], [8, 16]) }, 12), "tensor 'b' ends at byte 16 of the data"],
    ['overlapping tensors', file({ a: ok, b: tensor('F32', [2], [4, 12]) }, 12), "tensor 'b' at [4, 12] overlaps 'a'"],
    ['the same bytes twice', file({ a: ok, b: ok }, 8), "overlaps 'a'"],
    ['a hole', file({ a: ok, b: tensor('F32', [1], [12, 16]) }, 16), "bytes 8 to 12 between 'a' and tensor 'b'"],
    ['a hole at the start', file({ a: tensor('F32', [1], [4, 8]) }, 8), "bytes 0 to 4 before tensor 'a'"],
    ['bytes after the end', file({ a: ok }, 9), '1 bytes after the last tensor belong to no tensor'],
    ['bytes but no tensor', file({}, 4), '4 bytes after the last tensor'],
  ];
  test.each(hostile)('refuses %s', async (_, bytes, message) => {
    await writeFile(path, bytes);
    const opening = openSafetensors(path);
    await expect(opening).rejects.toThrow(CheckpointError);
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow(path);
  });

  test('refuses a header of long strings without running out of stack', async () => {
    await writeFile(path, file(`{"__metadata__":{"a":"${'\\n'.repeat(8_000_000)}","a":""}}`));
    await expect(openSafetensors(path)).rejects.toThrow("the key 'a' twice");
  });

  test('refuses what is not a file', async () => {
    await expect(openSafetensors(path)).rejects.toThrow(`${path}: cannot be opened: there is no such file`);
    await expect(openSafetensors(dir)).rejects.toThrow(`${dir}: cannot be opened: it is a directory`);
    await expect(openSafetensors('/dev/zero')).rejects.toThrow('it is not a regular file');
  });
});

describe('writeSafetensors', () => {
  test('what it writes is read back', async () => {
    async function* entries(): AsyncGenerator<SafetensorsEntry> {
      yield entry('half', 'F16', [3], new Uint8Array([1, 2, 3, 4, 5, 6]));
      yield { name: 'weight', dtype: 'F32', shape: [2, 2], data: async () => floats(1, 2, 3, 4) };
      yield entry('empty', 'F32', [0, 7], new Uint8Array(0));
      yield entry('step', 'I64', [], new Uint8Array(new BigInt64Array([7n]).buffer));
    }
    await writeSafetensors(path, entries(), { format: 'pt', note: 'ü' });
    const dict = await openSafetensors(path);
    expect(dict.metadata).toEqual({ format: 'pt', note: 'ü' });
    expect(dict.keys()).toEqual(['step', 'weight', 'empty', 'half']);
    expect(dict.info('weight')).toEqual({ dtype: 'F32', shape: [2, 2] });
    expect([...decodeToFloat32(await dict.read('weight'), 'F32')]).toEqual([1, 2, 3, 4]);
    expect([...(await dict.read('half'))]).toEqual([1, 2, 3, 4, 5, 6]);
    expect([...decodeToFloat32(await dict.read('step'), 'I64')]).toEqual([7]);
    await dict.close();
    expect((await readFile(path)).readBigUInt64LE() % 8n).toBe(0n);
    expect(await readdir(dir)).toEqual(['model.safetensors']);
  });

  test.each<[string, SafetensorsEntry[], string]>([
    ['too little data', [entry('a', 'F32', [3], floats(1, 2))], "'a' of shape [3] in F32 takes 12 bytes, got 8"],
    ['a name twice', [entry('a', 'F32', [], floats(1)), entry('a', 'F32', [], floats(1))], "the name 'a' is taken"],
    ['the reserved name', [entry('__metadata__', 'F32', [], floats(1))], "the name '__metadata__' is taken"],
    ['a bad shape', [entry('a', 'F32', [-1], floats())], "tensor 'a' has shape [-1]"],
  ])('refuses %s and keeps the file that was there', async (_, entries, message) => {
    await writeFile(path, 'before');
    const writing = writeSafetensors(path, entries);
    await expect(writing).rejects.toThrow(InvalidArgumentError);
    await expect(writing).rejects.toThrow(message);
    expect(await readdir(dir)).toEqual(['model.safetensors']);
    expect(await readFile(path, 'utf8')).toBe('before');
  });

  test('a failing tensor leaves nothing behind', async () => {
    const failing: SafetensorsEntry = {
      ...entry('b', 'F32', [1], floats(1)),
      data: () => Promise.reject(new Error('disposed')),
    };
    await expect(writeSafetensors(path, [entry('a', 'F32', [1], floats(1)), failing])).rejects.toThrow('disposed');
    expect(await readdir(dir)).toEqual([]);
  });

  test('paths that cannot be written', async () => {
    const entries = [entry('a', 'F32', [1], floats(1))];
    const orphan = writeSafetensors(join(dir, 'none', 'a.safetensors'), entries);
    await expect(orphan).rejects.toThrow(FileWriteError);
    await expect(orphan).rejects.toThrow(`the directory '${join(dir, 'none')}' does not exist`);
    await mkdir(path);
    await expect(writeSafetensors(path, entries)).rejects.toThrow('it is a directory');
    await writeFile(join(dir, 'plain'), '');
    await expect(writeSafetensors(join(dir, 'plain', 'a'), entries)).rejects.toThrow('is not a directory');
  });

  test('writes through a symbolic link', async () => {
    await writeFile(path, 'before');
    await symlink('model.safetensors', join(dir, 'link'));
    await writeSafetensors(join(dir, 'link'), [entry('a', 'F32', [1], floats(5))]);
    const dict = await openSafetensors(path);
    expect([...decodeToFloat32(await dict.read('a'), 'F32')]).toEqual([5]);
    await dict.close();
    expect((await readdir(dir)).sort()).toEqual(['link', 'model.safetensors']);
  });
});
