import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import {
  conv2d,
  groupNorm,
  type Implementation,
  layerNorm,
  linear,
  memoryEfficientAttention,
  memoryEfficientAttentionPacked,
  memoryEfficientAttentionTokens,
  packedQkv,
  timestepEmbedding,
} from '../../src/ops/index.js';
import { relativeL2 } from '../support/compare.js';
import { BOUND, type Gpu, numbers, onCpu, onGpu, startWebGpu } from './support.js';

// biome-ignore lint/suspicious/noExplicitAny: operands of every rank
type Op = (x: any[], impl: Implementation) => tf.Tensor;
type Case = [name: string, op: Op, shapes: number[][]];

const CASES: Case[] = [
  [
    '3x3',
    ([x, f], impl) => conv2d(x, f, { padding: 1, impl }),
    [
      [1, 7, 9, 5],
      [3, 3, 5, 11],
    ],
  ],
  [
    '3x3 with everything',
    ([x, f, bias, residual, timeEmbedding], impl) =>
      conv2d(x, f, { bias, residual, timeEmbedding, padding: 1, activation: 'silu', impl }),
    [[3, 9, 7, 32], [3, 3, 32, 48], [48], [3, 9, 7, 48], [3, 48]],
  ],
  [
    'stride 2',
    ([x, f, bias], impl) => conv2d(x, f, { bias, padding: 1, stride: 2, impl }),
    [[2, 9, 8, 6], [3, 3, 6, 10], [10]],
  ],
  [
    'stride 2 padded at one end',
    ([x, f, bias], impl) =>
      conv2d(x, f, {
        bias,
        padding: [
          [0, 1],
          [0, 1],
        ],
        stride: 2,
        impl,
      }),
    [[1, 8, 8, 8], [3, 3, 8, 12], [12]],
  ],
  [
    '1x1',
    ([x, f, bias, residual], impl) => conv2d(x, f, { bias, residual, impl }),
    [[2, 5, 7, 33], [1, 1, 33, 17], [17], [2, 5, 7, 17]],
  ],
  [
    'upsampled',
    ([x, f, bias], impl) => conv2d(x, f, { bias, padding: 1, upsample: 2, impl }),
    [[2, 5, 7, 12], [3, 3, 12, 20], [20]],
  ],
  [
    'linear',
    ([x, w], impl) => linear(x, w, { impl }),
    [
      [3, 5, 33],
      [33, 7],
    ],
  ],
  [
    'linear, gelu',
    ([x, w, bias, residual], impl) => linear(x, w, { bias, residual, activation: 'gelu', impl }),
    [[2, 37, 32], [32, 48], [48], [2, 37, 48]],
  ],
  [
    'linear, quick gelu',
    ([x, w, bias], impl) => linear(x, w, { bias, activation: 'quick_gelu', impl }),
    [[9, 32], [32, 6], [6]],
  ],
  [
    'linear, geglu',
    ([x, w, bias], impl) => linear(x, w, { bias, activation: 'geglu', impl }),
    [[2, 37, 32], [32, 96], [96]],
  ],
  [
    'linear, odd geglu',
    ([x, w, bias], impl) => linear(x, w, { bias, activation: 'geglu', impl }),
    [[5, 7], [7, 10], [10]],
  ],
  [
    'packed q, k, v',
    ([x, q, k, v, bq, bk, bv], impl) => packedQkv(x, { q, k, v }, { bias: { q: bq, k: bk, v: bv }, impl }),
    [[2, 19, 40], [40, 24], [40, 24], [40, 24], [24], [24], [24]],
  ],
  [
    'packed q, k, v, odd',
    ([x, q, k, v], impl) => packedQkv(x, { q, k, v }, { impl }),
    [
      [3, 5, 33],
      [33, 7],
      [33, 7],
      [33, 7],
    ],
  ],
  [
    'group norm',
    ([x, g, b], impl) => groupNorm(x, g, b, { groups: 8, activation: 'silu', impl }),
    [[2, 9, 7, 32], [32], [32]],
  ],
  ['group norm, odd', ([x, g, b], impl) => groupNorm(x, g, b, { groups: 3, impl }), [[3, 5, 15], [15], [15]]],
  ['group norm in pieces', ([x, g, b], impl) => groupNorm(x, g, b, { groups: 2, impl }), [[1, 70, 71, 8], [8], [8]]],
  ['layer norm', ([x, g, b], impl) => layerNorm(x, g, b, { impl }), [[2, 9, 77], [77], [77]]],
  [
    'timestep embedding',
    ([t], impl) => timestepEmbedding(tf.abs(tf.mul(t, 300)), { dim: 33, flipSinToCos: true, impl }),
    [[5]],
  ],
  [
    'attention',
    ([q, k, v], impl) => memoryEfficientAttention(q, k, v, { impl }),
    [
      [2, 3, 70, 40],
      [2, 3, 77, 40],
      [2, 3, 77, 40],
    ],
  ],
  [
    'attention, wide heads',
    ([q, k, v], impl) => memoryEfficientAttention(q, k, v, { impl }),
    [
      [1, 1, 33, 192],
      [1, 1, 50, 192],
      [1, 1, 50, 192],
    ],
  ],
  [
    'attention, odd heads',
    ([q, k, v], impl) => memoryEfficientAttention(q, k, v, { impl }),
    [
      [1, 2, 20, 7],
      [1, 2, 50, 7],
      [1, 2, 50, 9],
    ],
  ],
  [
    'attention of tokens',
    ([q, k, v], impl) => memoryEfficientAttentionTokens(q, k, v, 2, { impl }),
    [
      [2, 35, 32],
      [2, 9, 32],
      [2, 9, 32],
    ],
  ],
  [
    'attention with a bias',
    ([q, k, v, bias], impl) => memoryEfficientAttention(q, k, v, { bias, impl }),
    [
      [2, 3, 20, 16],
      [2, 3, 21, 16],
      [2, 3, 21, 16],
      [1, 3, 20, 21],
    ],
  ],
  ['packed attention', ([qkv], impl) => memoryEfficientAttentionPacked(qkv, 2, { impl }), [[2, 33, 96]]],
];

describe('fused kernels of webgpu equal their composed twins', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await startWebGpu({ poisoned: true });
  });
  afterEach(async () => {
    expect(await gpu.complaints()).toEqual([]);
    expect(tf.memory().numTensors).toBe(0);
  });

  test.each(CASES)('%s', async (_, op, shapes) => {
    const given = shapes.map((shape, i) => numbers(shape, i + 1));
    for (const type of gpu.types) {
      const inputs = given.map((values, i) => onGpu(gpu, values, shapes[i]!, type));
      const rounded = await Promise.all(inputs.map((x) => x.data<'float32'>()));
      const actual = tf.tidy(() => op(inputs, 'native'));
      const [expected] = await onCpu(() => [
        op(
          rounded.map((values, i) => tf.tensor(values, shapes[i]!)),
          'composed',
        ),
      ]);
      expect(actual.shape).toEqual(expected!.shape);
      expect(relativeL2(await actual.data(), expected!.values)).toBeLessThan(BOUND[type]);
      tf.dispose([actual, inputs]);
    }
  });

  test('group norm keeps its precision when the mean is far from zero', async () => {
    const shape = [1, 32, 32, 32];
    const y = tf.tidy(() =>
      groupNorm(tf.add(tf.tensor(numbers(shape, 7), shape), 1000), tf.ones([32]), tf.zeros([32]), {
        groups: 32,
        impl: 'native',
      }),
    );
    const { mean, variance } = tf.tidy(() => tf.moments(tf.reshape(y, [-1, 32]), 0));
    expect(relativeL2(await variance.data(), new Float32Array(32).fill(1))).toBeLessThan(1e-3);
    expect(Math.max(...(await mean.data()).map(Math.abs))).toBeLessThan(1e-3);
    tf.dispose([y, mean, variance]);
  });

  test('hidden keys count nothing, and a row with none left gives 0', async () => {
    const shape = [1, 1, 5, 8];
    const mask = Float32Array.from({ length: 25 }, (_, i) => (i % 5 > Math.floor(i / 5) || i < 5 ? -Infinity : 0));
    const [q, k, v] = [1, 2, 3].map((seed) => numbers(shape, seed));
    const run = (impl: Implementation) => {
      const [a, b, c] = [q, k, v].map((values) => tf.tensor4d(values!, [1, 1, 5, 8]));
      return memoryEfficientAttention(a!, b!, c!, { bias: tf.tensor(mask, [1, 1, 5, 5]), impl });
    };
    const actual = tf.tidy(() => run('native'));
    const [expected] = await onCpu(() => [run('composed')]);
    const values = await actual.data();
    expect([...values.slice(0, 8)]).toEqual(new Array(8).fill(0));
    expect(relativeL2(values, expected!.values)).toBeLessThan(BOUND.float32);
    actual.dispose();
  });

  const GRADIENTS = CASES.filter(([name]) =>
    /^(3x3 with|stride 2$|linear, ge|group norm$|layer|attention|packed)/.test(name),
  );

  test.each(GRADIENTS)('gradients of %s', async (_, op, shapes) => {
    const given = shapes.map((shape, i) => numbers(shape, i + 1));
    const gradients = (impl: Implementation) => {
      const f = tf.grads((...x: tf.Tensor[]) => tf.sum(tf.sin(op(x, impl))));
      return f(given.map((values, i) => tf.tensor(values, shapes[i]!)));
    };
    const actual = tf.tidy(() => gradients('native'));
    const expected = await onCpu(() => gradients('composed'));
    for (const [i, gradient] of actual.entries()) {
      expect(gradient.shape).toEqual(shapes[i]);
      expect(relativeL2(await gradient.data(), expected[i]!.values)).toBeLessThan(2e-5);
    }
    tf.dispose(actual);
  });
});
