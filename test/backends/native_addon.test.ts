import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { loadAddon } from '../../src/backends/native/addon.js';
import type { NativeBackend } from '../../src/backends/native/backend.js';
import { absentKernels, nativeKernels } from '../../src/backends/native/register.js';
import { DiffusersError, InvalidArgumentError } from '../../src/errors.js';
import { NATIVE_BACKEND, nativeSuite, nativeTest } from '../support/native.js';
import { startNative } from './support.js';

const ADDON_MODULE = pathToFileURL(resolve('dist/backends/native/addon.js')).href;
const PROGRAM = `
  const { loadAddon } = await import('${ADDON_MODULE}');
  const { addon, reason } = loadAddon('onednn');
  console.log(JSON.stringify({ loads: addon !== undefined, reason }));`;

nativeSuite('the probe of an addon', () => {
  let folder: string;
  let addon: string;
  let cache: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'probe-'));
    cache = join(folder, 'cache');
    mkdirSync(join(folder, 'native'));
    addon = join(folder, 'native', 'onednn.node');
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  function load(environment: Record<string, string> = {}): { loads: boolean; reason?: string } {
    const env = {
      ...process.env,
      TFJS_DIFFUSERS_NATIVE_FOLDER: join(folder, 'native'),
      XDG_CACHE_HOME: cache,
      ...environment,
    };
    return JSON.parse(
      execFileSync(process.execPath, ['--input-type=module', '-e', PROGRAM], { env, encoding: 'utf8' }),
    );
  }
  const kept = (place = cache) =>
    readdirSync(join(place, 'tfjs-diffusers')).filter((name) => name.startsWith('addon-'));

  test('a success is remembered, a failure is not', () => {
    writeFileSync(addon, 'no library');
    expect(load()).toEqual({ loads: false, reason: expect.stringContaining(`${addon} does not load here`) });
    expect(() => kept()).toThrow(/ENOENT/);
    rmSync(addon);
    symlinkSync(resolve('build/native/onednn.node'), addon);
    expect(load()).toEqual({ loads: true });
    expect(kept()).toHaveLength(1);
    expect(load()).toEqual({ loads: true });
    expect(kept()).toHaveLength(1);
  });

  test('a cache of an earlier version that holds a failure turns nothing off', () => {
    symlinkSync(resolve('build/native/onednn.node'), addon);
    load();
    writeFileSync(join(cache, 'tfjs-diffusers', kept()[0]!), 'loading it ends with SIGKILL');
    expect(load()).toEqual({ loads: true });
  });

  test('an empty XDG_CACHE_HOME is none', () => {
    symlinkSync(resolve('build/native/onednn.node'), addon);
    expect(load({ XDG_CACHE_HOME: '', HOME: folder })).toEqual({ loads: true });
    expect(kept(join(folder, '.cache'))).toHaveLength(1);
  });

  test('an addon that is not there says how to get one', () => {
    expect(load()).toEqual({ loads: false, reason: expect.stringContaining('npm run build:native') });
  });
});

describe('kernels that an addon lacks', () => {
  test('are listed by name, also those that need another one', () => {
    expect(absentKernels([])).toEqual(expect.arrayContaining(['Add', 'Linear', 'RmsNorm', 'MemoryEfficientAttention']));
    const there = loadAddon(NATIVE_BACKEND).addon?.kernels ?? nativeKernels;
    expect(absentKernels(there.filter((name) => name !== 'RmsNorm'))).toEqual(['RmsNorm']);
  });

  nativeTest('are none of onednn', () => {
    expect(absentKernels(loadAddon('onednn').addon!.kernels)).toEqual([]);
  });
});

nativeSuite('the functions of the addon', () => {
  let backend: NativeBackend;

  beforeAll(async () => {
    backend = await startNative();
  });

  /** The list, where reading its second number does something first. */
  function interrupted(list: number[], work: () => void): number[] {
    const value = list[1];
    return Object.defineProperty(list, 1, {
      get() {
        work();
        return value;
      },
    });
  }

  test('a buffer that is detached while the shape is read is an error', () => {
    const values = new Float32Array(1 << 20);
    const shape = interrupted([1 << 10, 1 << 10], () => structuredClone(values.buffer, { transfer: [values.buffer] }));
    expect(() => backend.addon.create(values, 0, 0, shape)).toThrow(/needs 1048576 numbers, the array has 0 bytes/);
  });

  test('so is one that shrinks', () => {
    type Resizable = ArrayBuffer & { resize(bytes: number): void };
    const Buffer = ArrayBuffer as unknown as new (bytes: number, options: { maxByteLength: number }) => Resizable;
    const buffer = new Buffer(1 << 22, { maxByteLength: 1 << 22 });
    const shape = interrupted([1 << 10, 1 << 10], () => buffer.resize(64));
    expect(() => backend.addon.create(new Float32Array(buffer), 0, 0, shape)).toThrow(/the array has 64 bytes/);
  });

  test('a detached array is not read into', () => {
    const target = new Float32Array(4);
    structuredClone(target.buffer, { transfer: [target.buffer] });
    const handle = backend.addon.create(new Float32Array(4), 0, 0, [4]);
    expect(() => backend.addon.readSync(handle, target)).toThrow(/does not fit 4 numbers/);
    backend.addon.dispose(handle);
  });
});

nativeSuite('errors of kernels', () => {
  beforeAll(startNative);

  test.each([
    ['Softmax', { logits: tf.zeros([2, 3]) }, { dim: 0 }, InvalidArgumentError],
    ['LogSoftmax', { logits: tf.zeros([2, 3]) }, { axis: 0 }, InvalidArgumentError],
    ['Linear', { x: tf.zeros([2, 3]), weight: tf.zeros([4, 5]) }, {}, DiffusersError],
    ['RmsNorm', { x: tf.zeros([2, 3]), gamma: tf.zeros([4]) }, {}, DiffusersError],
    ['Conv2dFused', { x: tf.zeros([2, 3]), filter: tf.zeros([4, 5]) }, {}, DiffusersError],
    ['GroupNorm', { x: tf.zeros([2, 3]), gamma: tf.zeros([3]), beta: tf.zeros([3]) }, { groups: 2 }, DiffusersError],
    [
      'MemoryEfficientAttention',
      { q: tf.zeros([2]), k: tf.zeros([2]), v: tf.zeros([2]) },
      { scale: 1 },
      DiffusersError,
    ],
    ['Transpose', { x: tf.zeros([2, 3]) }, { perm: [0, 0] }, DiffusersError],
  ])('%s throws an error of this library that names it', (name, inputs, attributes, type) => {
    const run = () => tf.engine().runKernel(name, inputs as unknown as tf.NamedTensorMap, attributes);
    expect(run).toThrow(type);
    expect(run).toThrow(`[${name}]`);
  });
});
