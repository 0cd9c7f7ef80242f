import { beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import '@tensorflow/tfjs-backend-wasm';
import {
  AttentionMemoryError,
  type AttentionName,
  type AttentionOptions,
  type AttentionShape,
  createAttention,
  DoggettxAttention,
  InvokeaiAttention,
  SubQuadraticAttention,
} from '../../src/attention/index.js';
import { measurePeak } from '../../src/backends/peak_memory.js';
import { freeMemory } from '../../src/backends/traits.js';
import { OutOfMemoryError } from '../../src/errors.js';
import { withPictureAdvice } from '../../src/pipelines/common/memory_advice.js';
import { relativeL2 } from '../support/compare.js';
import { randomOperands, randomProjections } from './support.js';

const KB = 2 ** 10;
const MB = 2 ** 20;
const GB = 2 ** 30;

const shape: AttentionShape = { batch: 1, heads: 8, queries: 300, keys: 300, dimHead: 8, bytes: 4 };
const matrix = 8 * 300 * 300 * 4;
/** Bytes of the queries of all heads, of the keys, of the values, of the output. */
const operand = 300 * 64 * 4;

async function measured(options: AttentionOptions): Promise<number> {
  const [q, k, v] = randomOperands(shape);
  const attention = createAttention(options, randomProjections(shape.heads, shape.dimHead));
  const { value, peakBytes } = await measurePeak(() => attention.attend(q, k, v));
  tf.dispose([q, k, v, value]);
  return peakBytes;
}

beforeAll(async () => {
  await tf.setBackend('wasm');
});

describe('measured peak memory follows the formula', () => {
  const cases: [AttentionOptions, number][] = [
    [{ name: 'classic' }, 2 * matrix],
    [{ name: 'sliced' }, matrix],
    [{ name: 'sliced', sliceSize: 3 }, (2 * matrix * 3) / 8],
    [{ name: 'sliced', sliceSize: 'max' }, (2 * matrix) / 8],
    [{ name: 'split-v1' }, (2 * matrix * 2) / 8],
    [{ name: 'sub-quadratic', queryChunkSize: 70 }, (2 * matrix * 70) / 300],
    [
      { name: 'sub-quadratic', queryChunkSize: 70, kvChunkSize: 110, chunkThreshold: 0 },
      (2 * matrix * 70 * 110) / 300 ** 2,
    ],
    [{ name: 'sub-quadratic', queryChunkSize: 128, chunkThreshold: 0 }, (2 * matrix * 128 * 17) / 300 ** 2],
    [{ name: 'invokeai' }, 2 * matrix],
  ];
  // the cpu backend is slow but, unlike wasm, never computes head by head
  test.each(cases)('%j', async (options, expected) => {
    await tf.setBackend('cpu');
    expect(createAttention(options, randomProjections(8, 8)).requiredBytes(shape)).toBeCloseTo(expected);
    const bytes = await measured(options);
    expect(bytes).toBeGreaterThanOrEqual(expected);
    expect(bytes).toBeLessThan(expected + 10 * operand);
    await tf.setBackend('wasm');
  });

  test('blocks on wasm are those of one head', async () => {
    const one = (2 * matrix) / 8;
    expect(createAttention('memory-efficient', randomProjections(8, 8)).requiredBytes(shape)).toBeCloseTo(one);
    const bytes = await measured({ name: 'memory-efficient' });
    expect(bytes).toBeGreaterThanOrEqual(one);
    expect(bytes).toBeLessThan(one + 10 * operand);
  });

  test('sdp takes the whole matrix while it fits into 70% of what is free, and blocks on wasm', async () => {
    const [q, k, v] = randomOperands(shape);
    const taken = (free: number) => {
      const attention = createAttention({ name: 'sdp', freeMemory: () => free }, randomProjections(8, 8));
      attention.attend(q, k, v).dispose();
      return attention.taken;
    };
    expect(taken(3 * matrix)).toBe('memory-efficient');
    await tf.setBackend('cpu');
    expect(taken(3 * matrix)).toBe('classic');
    expect(taken(2.5 * matrix)).toBe('memory-efficient');
    tf.dispose([q, k, v]);
    await tf.setBackend('wasm');
  });

  test.each([4 * MB, 2 * MB, MB, MB / 2])('doggettx stays within %d bytes free', async (free) => {
    const bytes = await measured({ name: 'doggettx', freeMemory: () => free });
    const whole = 2.5 * matrix;
    const steps = whole > free ? 2 ** Math.ceil(Math.log2(whole / free)) : 1;
    const step = (whole * Math.floor(300 / steps)) / 300;
    expect(step).toBeLessThanOrEqual(free);
    expect(bytes).toBeGreaterThan(0.8 * step);
    expect(bytes).toBeLessThan(step + 10 * operand);
  });

  test('memory-efficient and sdp-no-mem hold blocks of bounded size', async () => {
    for (const name of ['memory-efficient', 'sdp-no-mem'] as const) {
      const large = createAttention(name, randomProjections(8, 8));
      const required = (queries: number) => large.requiredBytes({ ...shape, queries, keys: queries });
      expect(required(65536)).toBe(required(16384));
      expect(required(65536)).toBeLessThanOrEqual(8 * MB);
    }
  });
});

describe('doggettx', () => {
  const unet = (free: number) => new DoggettxAttention({ freeMemory: () => free });
  // 2 x 8 heads at 512 x 512: scores of 1 GB
  const picture: AttentionShape = { batch: 2, heads: 8, queries: 4096, keys: 4096, dimHead: 40, bytes: 4 };

  test('takes a power of two of steps, by 2.5 times the scores in 32 and 3 times in 16 bits', () => {
    expect(unet(0).steps(picture, 2.5 * GB)).toBe(1);
    expect(unet(0).steps(picture, 2.4 * GB)).toBe(2);
    expect(unet(0).steps(picture, 0.7 * GB)).toBe(4);
    expect(unet(0).steps({ ...picture, bytes: 2 }, 1.5 * GB)).toBe(1);
    expect(unet(0).steps({ ...picture, bytes: 2 }, 1.4 * GB)).toBe(2);
  });

  test('more than 64 steps is an error that says which size would fit, unless there is no end of steps', () => {
    tf.tidy(() => {
      const [q, k, v] = randomOperands({ batch: 1, heads: 8, dimHead: 8, queries: 300, keys: 300 });
      const operands = { q, k, v, heads: 8, scale: 1 };
      const need = 2.5 * matrix;
      expect(() => unet(need / 64).attend(operands)).not.toThrow();
      const tooLittle = unet(need / 64 / 1.5);
      expect(() => tooLittle.attend(operands)).toThrow(OutOfMemoryError);
      // 300 / sqrt(1.5) tokens have 1 / 1.5 of the scores
      expect(() => tooLittle.attend(operands)).toThrow(/'doggettx' needs 110 KB.*244 of these 300 tokens would fit/);
      const endless = new DoggettxAttention({
        freeMemory: () => need / 100,
        halfFactor: 2.5,
        maxSteps: Number.POSITIVE_INFINITY,
      });
      expect(endless.attend(operands).shape).toEqual([1, 300, 64]);
      expect(endless.steps({ ...picture, bytes: 2 }, 1.25 * GB)).toBe(1);
    });
  });
});

describe('invokeai', () => {
  const plan = (queries: number, batch = 2, heads = 8) =>
    new InvokeaiAttention().plan({
      batch,
      heads,
      queries,
      keys: queries,
      dimHead: 40,
      bytes: 4,
    });

  test('cuts scores above 32 MB on a CPU by rows of batch x heads, else by queries', () => {
    expect(plan(512)).toEqual({ by: 'whole', size: 16 }); // 16 MB
    expect(plan(724)).toEqual({ by: 'whole', size: 16 }); // 31 MB
    expect(plan(768)).toEqual({ by: 'rows', size: 8 }); // 36 MB: 35 / 32 = 1, 1 bit, 2 slices
    expect(plan(2048)).toEqual({ by: 'rows', size: 2 }); // 256 MB: 255 / 32 = 7, 3 bits, 8 slices
    expect(plan(4096)).toEqual({ by: 'queries', size: 128 }); // 1024 MB: 1023 / 32 = 31, 5 bits, 32 slices
    expect(plan(1024, 9)).toEqual({ by: 'rows', size: 4 }); // 288 MB: 287 / 32 = 8, 4 bits, 16 slices of 72 rows
  });

  test('a plan by rows and one by queries give what classic gives', () => {
    for (const [heads, queries, by] of [
      [7, 1203, 'rows'],
      [1, 3101, 'queries'],
    ] as const) {
      const large = { batch: 1, heads, queries, keys: queries, dimHead: 2 };
      expect(plan(queries, 1, heads).by).toBe(by);
      tf.tidy(() => {
        const [q, k, v] = randomOperands(large);
        const [ours, classic] = ['invokeai', 'classic'].map((name) =>
          createAttention(name as AttentionName, randomProjections(heads, 2))
            .attend(q, k, v)
            .dataSync(),
        );
        expect(relativeL2(ours!, classic!)).toBeLessThan(1e-5);
      });
    }
  });
});

describe('sub-quadratic', () => {
  const picture: AttentionShape = { batch: 2, heads: 8, queries: 4096, keys: 4096, dimHead: 40, bytes: 4 };
  const chunks = (options: Omit<AttentionOptions, 'name'>) => new SubQuadraticAttention(options).chunks(picture);

  test('takes all keys at once while the scores are below the threshold', () => {
    expect(chunks({ freeMemory: () => 1.5 * GB }).kvChunkSize).toBe(4096);
    expect(chunks({ freeMemory: () => 1.4 * GB }).kvChunkSize).toBeUndefined();
    expect(chunks({ freeMemory: () => 1.4 * GB, chunkThreshold: 80 }).kvChunkSize).toBe(4096);
    expect(chunks({ freeMemory: () => 1e15, chunkThreshold: 0 }).kvChunkSize).toBeUndefined();
  });

  test('the least chunk of keys fills the threshold, unless one is given', () => {
    const free = 10 * MB;
    expect(chunks({ freeMemory: () => free }).kvChunkSizeMin).toBe(Math.floor(Math.floor(free * 0.7) / (16 * 4 * 80)));
    expect(chunks({ freeMemory: () => free, kvChunkSizeMin: 0 }).kvChunkSizeMin).toBeUndefined();
    expect(chunks({ freeMemory: () => free, kvChunkSizeMin: 99 }).kvChunkSizeMin).toBe(99);
    expect(chunks({ chunkThreshold: 0 }).kvChunkSizeMin).toBeUndefined();
  });
});

describe('too little memory', () => {
  const names = ['classic', 'sliced', 'split-v1', 'invokeai', 'sub-quadratic', 'memory-efficient'] as const;
  test.each(names)('%s', (name) => {
    tf.tidy(() => {
      const [q, k, v] = randomOperands(shape);
      const options = { name, freeMemory: () => 400 * KB, chunkThreshold: 0 };
      const attention = createAttention(options, randomProjections(8, 8));
      const required = attention.requiredBytes(shape);
      if (required <= 400 * KB || name === 'memory-efficient') {
        expect(attention.attend(q, k, v).shape).toEqual([1, 300, 64]);
        return;
      }
      const error = new RegExp(`'${name}' needs .* for scores of 1 x 8 x 300 x 300, 400 KB is free; \\d+ of these 300`);
      expect(() => attention.attend(q, k, v)).toThrow(OutOfMemoryError);
      expect(() => attention.attend(q, k, v)).toThrow(error);
      const tokens = Number(/(\d+) of these/.exec(String(catchError(() => attention.attend(q, k, v))))![1]);
      const at = (n: number) => attention.requiredBytes({ ...shape, queries: n, keys: n });
      expect(at(tokens)).toBeLessThanOrEqual(400 * KB);
      expect(at(tokens + 1)).toBeGreaterThan(400 * KB);
    });
  });

  test('the pipeline says which picture would fit', () => {
    tf.tidy(() => {
      const [q, k, v] = randomOperands({ batch: 1, heads: 2, dimHead: 2, queries: 4096, keys: 4096 });
      const need = 2 * 2 * 4096 ** 2 * 4;
      const attention = createAttention({ name: 'classic', freeMemory: () => need / 2 }, randomProjections(2, 2));
      const error = catchError(() => attention.attend(q, k, v)) as AttentionMemoryError;
      expect(error).toBeInstanceOf(AttentionMemoryError);
      expect(error.shortage).toMatchObject({ method: 'classic', required: need, free: need / 2, tokens: 2896 });
      expect(error.message).not.toMatch(/pixels/);
      const advised = withPictureAdvice(error, 8) as AttentionMemoryError;
      expect(advised.message).toMatch(/2896 of these 4096 tokens would fit \(.* a picture of 384 x 384 pixels\)/);
      expect((withPictureAdvice(error, 32) as Error).message).toMatch(/1664 x 1664/);
    });
    const other = new Error('x');
    expect(withPictureAdvice(other, 8)).toBe(other);
  });
});

function catchError(f: () => unknown): unknown {
  try {
    f();
  } catch (error) {
    return error;
  }
  return undefined;
}

test('free memory of a plain backend is that of the system', () => {
  expect(freeMemory()).toBeGreaterThan(MB);
});
