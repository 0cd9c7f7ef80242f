import { afterEach, beforeAll, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { describeBackends, pickBackend } from '../../src/backends/index.js';
import type { NativeBackend } from '../../src/backends/native/backend.js';
import { type FloatStorageType, type PhysicalType, supportsPhysicalTypes } from '../../src/backends/types.js';
import { InvalidArgumentError, OutOfMemoryError } from '../../src/errors.js';
import { conv2d, linear } from '../../src/ops/index.js';
import { relativeL2 } from '../support/compare.js';
import { nativeSuite } from '../support/native.js';
import { numbers, startNative } from './support.js';

/** The upper half of float32 numbers that have nothing in the lower half. */
function toBf16(values: Float32Array): Uint8Array {
  const halves = new Uint16Array(values.length);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < halves.length; i++) halves[i] = bits[i]! >>> 16;
  return new Uint8Array(halves.buffer);
}

nativeSuite('the backend onednn', () => {
  let backend: NativeBackend;
  beforeAll(async () => {
    backend = await startNative();
  });
  afterEach(() => {
    backend.setMemoryLimit(0);
  });

  test('is the one that is picked by itself, and describes itself', async () => {
    expect(await pickBackend()).toBe('onednn');
    const own = (await describeBackends()).find(({ name }) => name === 'onednn');
    expect(own).toMatchObject({ name: 'onednn', available: true });
    expect(own!.detail).toMatch(/oneDNN \d+\.\d+/);
    expect(supportsPhysicalTypes(tf.backend())).toBe(true);
  });

  test('reads synchronously and asynchronously', async () => {
    const x = tf.range(0, 10000);
    const y = tf.add(x, 1);
    const expected = Float32Array.from({ length: 10000 }, (_, i) => i + 1);
    expect(y.dataSync()).toEqual(expected);
    const reading = y.data();
    y.dispose();
    expect(await reading).toEqual(expected);
    x.dispose();
  });

  test('tensors move to another backend and back', async () => {
    const x = tf.tensor1d([1, 2, 3]);
    const y = tf.mul(x, 2);
    await tf.setBackend('cpu');
    const z = tf.add(y, 1);
    expect(z.dataSync()).toEqual(Float32Array.from([3, 5, 7]));
    await tf.setBackend('onednn');
    expect(tf.add(z, y).dataSync()).toEqual(Float32Array.from([5, 9, 13]));
    tf.dispose([x, y, z]);
  });

  const bits: [FloatStorageType, Uint8Array, number[]][] = [
    ['F32', new Uint8Array(Float32Array.from([1, -2.5, 3, 4, 0.5, 65504]).buffer), [1, -2.5, 3, 4, 0.5, 65504]],
    [
      'F16',
      new Uint8Array(Uint16Array.from([0x3c00, 0xc100, 0x4200, 0x4400, 0x3800, 0x0001]).buffer),
      [1, -2.5, 3, 4, 0.5, 2 ** -24],
    ],
    [
      'BF16',
      new Uint8Array(Uint16Array.from([0x3f80, 0xc020, 0x4040, 0x4080, 0x3f00, 0x7f80]).buffer),
      [1, -2.5, 3, 4, 0.5, Number.POSITIVE_INFINITY],
    ],
  ];
  for (const [storage, bytes, values] of bits) {
    for (const physical of ['float32', 'bfloat16', 'float16'] as PhysicalType[]) {
      test(`takes ${storage} bytes as ${physical}`, () => {
        const x = backend.fromBytes(bytes, storage, [2, 3], physical);
        const y = backend.fromBytes(bytes, storage, [2, 3], physical, [1, 0]);
        expect(x.dtype).toBe('float32');
        expect(y.shape).toEqual([3, 2]);
        expect(backend.physicalType(x)).toBe(physical);
        const rounded = physical === 'bfloat16' && storage === 'F32' ? [1, -2.5, 3, 4, 0.5, 65536] : [...values];
        if (physical === 'float16' && storage === 'BF16') rounded[5] = Number.POSITIVE_INFINITY;
        expect([...x.dataSync()]).toEqual(rounded);
        expect([...y.dataSync()]).toEqual([0, 3, 1, 4, 2, 5].map((i) => rounded[i]!));
        tf.dispose([x, y]);
      });
    }
  }

  test('bytes that do not fit the shape are an error', () => {
    expect(() => backend.fromBytes(new Uint8Array(7), 'F32', [2], 'float32')).toThrow(InvalidArgumentError);
    expect(() => backend.fromBytes(new Uint8Array(8), 'F32', [2], 'float32', [1])).toThrow(/permutation/);
    expect(() => backend.fromBytes(new Uint8Array(8), 'F32', [2], 'float32', [0, 0])).toThrow(/permutation/);
  });

  test('packed 16-bit weights cost little more than their bytes and keep their numbers', () => {
    const before = backend.memoryInfo().bytesInUse;
    const filterValues = numbers([320, 160, 3, 3], 1, 0.05).dataSync() as Float32Array;
    const weightValues = numbers([640, 320], 2, 0.05).dataSync() as Float32Array;
    const filterBytes = toBf16(filterValues);
    const weightBytes = toBf16(weightValues);
    const base = backend.memoryInfo().bytesInUse;
    const filter = backend.fromBytes(filterBytes, 'BF16', [320, 160, 3, 3], 'bfloat16', [2, 3, 1, 0]) as tf.Tensor4D;
    const weight = backend.fromBytes(weightBytes, 'BF16', [640, 320], 'bfloat16', [1, 0]) as tf.Tensor2D;
    const originals = [filter.dataSync(), weight.dataSync()];
    tf.tidy(() => {
      const x = backend.toPhysical(numbers([2, 8, 8, 160], 3), 'bfloat16') as tf.Tensor4D;
      const y = conv2d(x, filter, { padding: 1, impl: 'native' });
      // other sizes of image and batch do not keep another copy, nor do other ways to convolve
      conv2d(tf.slice(x, [0, 0, 0, 0], [1, 2, 2, 160]) as tf.Tensor4D, filter, { padding: 1, impl: 'native' });
      conv2d(tf.tile(x, [3, 2, 2, 1]) as tf.Tensor4D, filter, { padding: 1, impl: 'native' });
      conv2d(tf.slice(x, [0, 0, 0, 0], [1, 4, 4, 160]) as tf.Tensor4D, filter, { padding: 1, impl: 'native' });
      linear(y, weight, { impl: 'native' });
      linear(tf.slice(y, [0, 0, 0, 0], [1, 1, 1, 320]), weight, { impl: 'native' });
    });
    const held = backend.memoryInfo().bytesInUse - base;
    expect(held).toBeLessThan(1.15 * (filterBytes.length + weightBytes.length));
    expect(filter.dataSync()).toEqual(originals[0]);
    expect(weight.dataSync()).toEqual(originals[1]);
    tf.dispose([filter, weight]);
    expect(backend.memoryInfo().bytesInUse).toBeLessThanOrEqual(Math.max(before, base));
  });

  test('weights can be trained: gradients of packed weights', () => {
    const values = numbers([8, 4, 3, 3], 5, 0.2);
    const bytes = new Uint8Array((values.dataSync() as Float32Array).buffer);
    const filter = backend.fromBytes(bytes, 'F32', [8, 4, 3, 3], 'float32', [2, 3, 1, 0]) as tf.Tensor4D;
    const x = numbers([1, 5, 5, 4], 6) as tf.Tensor4D;
    const gradient = (impl: 'native' | 'composed') =>
      tf.grad((f) => tf.sum(tf.square(conv2d(x, f as tf.Tensor4D, { padding: 1, impl }))))(filter);
    const [native, composed] = [gradient('native'), gradient('composed')];
    expect(relativeL2(native.dataSync(), composed.dataSync())).toBeLessThan(1e-5);
    tf.dispose([values, filter, x, native, composed]);
  });

  test('a limit below need is a typed error, after which everything works', () => {
    const x = numbers([512, 512], 1);
    x.dataSync();
    backend.setMemoryLimit(backend.memoryInfo().bytesInUse + 100_000);
    const tensors = tf.memory().numTensors;
    expect(() => tf.matMul(x as tf.Tensor2D, x as tf.Tensor2D)).toThrow(OutOfMemoryError);
    expect(() => tf.tidy(() => tf.add(x, x))).toThrow(/\[Add\] needs \d+ bytes more/);
    expect(tf.memory().numTensors).toBe(tensors);
    backend.setMemoryLimit(0);
    expect(tf.tidy(() => tf.add(x, x).shape)).toEqual([512, 512]);
    x.dispose();
  });

  test('a failing kernel names itself, its inputs and the reason', () => {
    const run = () => backend.run('Linear', [tf.zeros([2, 3]), tf.zeros([4, 5])], {});
    expect(run).toThrow('[Linear] weight expects 4 inputs, got 3 (inputs: float32[2,3], float32[4,5])');
  });

  test('handles that were never given out or are disposed throw', () => {
    const { addon } = backend;
    const handle = addon.create(new Float32Array(4), 0, 0, [4]);
    addon.dispose(handle);
    for (const bad of [handle, -1, 1e15, Number.NaN, 0.5]) {
      expect(() => addon.readSync(bad, new Float32Array(4))).toThrow(/handle|number/);
      expect(() => addon.dispose(bad)).toThrow();
    }
    expect(() => addon.run(1e7)).toThrow();
    expect(() => addon.create('text' as unknown as Float32Array, 0, 0, [4])).toThrow(/typed array/);
    expect(() => addon.create(new Float32Array(3), 0, 0, [4])).toThrow(/needs 4 numbers/);
    expect(() => addon.create(new Float32Array(4), 0, 9, [4])).toThrow(/type/);
  });

  test('memory stays where it was over many rounds', () => {
    const filter = numbers([3, 3, 8, 8], 1) as tf.Tensor4D;
    const round = () =>
      tf.tidy(() => {
        const x = numbers([1, 9, 9, 8], 2) as tf.Tensor4D;
        return tf.sum(conv2d(x, filter, { padding: 1 })).dataSync()[0];
      });
    round();
    const { bytesInUse, poolBytes } = backend.memoryInfo();
    const ids = backend.numDataIds();
    for (let i = 0; i < 1000; i++) round();
    expect(backend.memoryInfo().bytesInUse).toBe(bytesInUse);
    expect(backend.memoryInfo().poolBytes).toBe(poolBytes);
    expect(backend.numDataIds()).toBe(ids);
    filter.dispose();
  });

  test('counts its peak', () => {
    backend.resetPeak();
    const { peakBytes, bytesInUse } = backend.memoryInfo();
    expect(peakBytes).toBe(bytesInUse);
    tf.tidy(() => tf.fill([1 << 20], 1).dataSync());
    expect(backend.memoryInfo().peakBytes).toBeGreaterThanOrEqual(bytesInUse + 4 * (1 << 20));
    expect(backend.memoryInfo().freeBytes).toBeGreaterThan(0);
  });

  test('kernels without a native form run on the cpu kernels', () => {
    const pooled = tf.tidy(() => tf.maxPool(tf.reshape(tf.range(0, 16), [1, 4, 4, 1]) as tf.Tensor4D, 2, 2, 'valid'));
    expect([...pooled.dataSync()]).toEqual([5, 7, 13, 15]);
    pooled.dispose();
  });

  test('16-bit operands: a single float32 number does not widen them, a float32 tensor does', () => {
    tf.tidy(() => {
      const x = backend.toPhysical(numbers([4, 4], 1), 'bfloat16');
      expect(backend.physicalType(tf.mul(x, 0.5))).toBe('bfloat16');
      expect(backend.physicalType(tf.add(x, numbers([4, 4], 2)))).toBe('float32');
      expect(backend.physicalType(tf.concat([x, x]))).toBe('bfloat16');
      expect(backend.physicalType(tf.mean(x, 1))).toBe('bfloat16');
    });
  });

  test('a rounded copy passes its gradient on', () => {
    const x = tf.tensor1d([1, 2, 3]);
    const gradient = tf.grad((v) => tf.sum(tf.square(backend.toPhysical(v, 'bfloat16'))))(x);
    expect([...gradient.dataSync()]).toEqual([2, 4, 6]);
    tf.dispose([x, gradient]);
  });
});
