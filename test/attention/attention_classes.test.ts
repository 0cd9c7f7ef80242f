import { beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-wasm';
import {
  type AttentionOptions,
  CrossAttention,
  createAttention,
  KeyValueCache,
  MemoryEfficientCrossAttention,
} from '../../src/attention/index.js';
import { BasicTransformerBlock } from '../../src/models/index.js';
import { Weights } from '../../src/nn/index.js';
import { relativeL2 } from '../support/compare.js';
import { type LayerShape, randomOperands, randomProjections } from './support.js';

const KB = 1024;

/** Every class, and options under which it has to cut its work unevenly. */
const settings: AttentionOptions[] = [
  { name: 'sliced' },
  { name: 'sliced', sliceSize: 'max' },
  { name: 'sliced', sliceSize: 2 },
  { name: 'split-v1' },
  { name: 'doggettx', freeMemory: () => 17 * KB },
  { name: 'sub-quadratic' },
  { name: 'sub-quadratic', queryChunkSize: 10 },
  { name: 'sub-quadratic', chunkThreshold: 0, queryChunkSize: 16 },
  { name: 'sub-quadratic', chunkThreshold: 0, queryChunkSize: 16, useCheckpoint: false },
  { name: 'sub-quadratic', chunkThreshold: 0, kvChunkSize: 9, queryChunkSize: 1000 },
  { name: 'sub-quadratic', chunkThreshold: 0, kvChunkSize: 4, kvChunkSizeMin: 11 },
  { name: 'memory-efficient' },
  { name: 'memory-efficient', attentionOp: 'composed' },
  { name: 'sdp' },
  { name: 'sdp', freeMemory: () => 64 },
  { name: 'sdp-no-mem' },
  { name: 'auto' },
];

const cases: [LayerShape, (number[] | null)[]][] = [
  [{ batch: 1, heads: 3, dimHead: 8, queries: 37, keys: 37 }, [null, [37], [1, 3, 37, 37]]],
  [{ batch: 3, heads: 3, dimHead: 5, queries: 41, keys: 19 }, [null, [3, 1, 1, 19], [3, 1, 41, 19]]],
  [{ batch: 2, heads: 5, dimHead: 16, queries: 13, keys: 77 }, [null, [5, 1, 77], [2, 5, 1, 77]]],
];

const label = ({ freeMemory, ...rest }: AttentionOptions) =>
  JSON.stringify(rest) + (freeMemory ? ` with ${freeMemory()} bytes free` : '');

beforeAll(async () => {
  await tf.setBackend('wasm');
});

describe.each(settings.map((options) => [label(options), options] as const))('%s', (_, options) => {
  for (const [shape, biasShapes] of cases) {
    for (const biasShape of biasShapes) {
      test(`equals classic in value and gradients: ${JSON.stringify(shape)}, bias ${biasShape}`, () => {
        const projections = randomProjections(shape.heads, shape.dimHead);
        const before = tf.memory().numTensors;
        tf.tidy(() => {
          const operands: tf.Tensor[] = randomOperands(shape);
          if (biasShape) {
            operands.push(tf.randomNormal(biasShape, 0, 1, 'float32', 9));
          }
          const dy = tf.randomNormal([shape.batch, shape.queries, shape.heads * shape.dimHead], 0, 1, 'float32', 4);
          const by = (attention: CrossAttention) => (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, bias?: tf.Tensor) =>
            attention.attend(q as tf.Tensor3D, k as tf.Tensor3D, v as tf.Tensor3D, bias);
          const ours = by(createAttention(options, projections));
          const classic = by(new CrossAttention(projections));
          const [q, k, v, bias] = operands as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor?];
          expect(relativeL2(ours(q, k, v, bias).dataSync(), classic(q, k, v, bias).dataSync())).toBeLessThan(1e-5);
          const gradient = (f: typeof ours) => tf.grads((a, b, c, d) => f(a!, b!, c!, d))(operands, dy);
          const actual = gradient(ours);
          for (const [i, expected] of gradient(classic).entries()) {
            expect(actual[i]!.shape).toEqual(expected.shape);
            expect(relativeL2(actual[i]!.dataSync(), expected.dataSync())).toBeLessThan(1e-5);
          }
        });
        expect(tf.memory().numTensors).toBe(before);
      });
    }
  }

  test('hides keys behind -Infinity', () => {
    const shape = { batch: 2, heads: 2, dimHead: 8, queries: 21, keys: 30 };
    tf.tidy(() => {
      const [q, k, v] = randomOperands(shape);
      const hidden = tf.tensor1d(Array.from({ length: 30 }, (_, i) => (i < 13 ? 0 : Number.NEGATIVE_INFINITY)));
      const attention = createAttention({ ...options }, randomProjections(2, 8));
      const visible = (x: tf.Tensor3D) => tf.slice(x, [0, 0, 0], [-1, 13, -1]);
      const expected = new CrossAttention(randomProjections(2, 8)).attend(q, visible(k), visible(v));
      expect(relativeL2(attention.attend(q, k, v, hidden).dataSync(), expected.dataSync())).toBeLessThan(1e-5);
    });
  });
});

test('classic is softmax(q k / sqrt(d)) v', () => {
  tf.tidy(() => {
    const [q, k, v] = randomOperands({ batch: 2, heads: 2, dimHead: 4, queries: 5, keys: 7 });
    const actual = new CrossAttention(randomProjections(2, 4)).attend(q, k, v).dataSync();
    const [a, b, c] = [q, k, v].map((x) => x.arraySync()) as [number[][][], number[][][], number[][][]];
    const expected: number[] = [];
    for (let n = 0; n < 2; n++) {
      for (let i = 0; i < 5; i++) {
        for (let h = 0; h < 2; h++) {
          const head = (x: number[]) => x.slice(4 * h, 4 * h + 4);
          const dot = (x: number[], y: number[]) => x.reduce((sum, value, j) => sum + value * y[j]!, 0);
          const weights = b[n]!.map((key) => Math.exp(dot(head(a[n]![i]!), head(key)) / 2));
          const total = weights.reduce((x, y) => x + y, 0);
          for (let d = 0; d < 4; d++) {
            expected.push(weights.reduce((sum, w, j) => sum + w * c[n]![j]![4 * h + d]!, 0) / total);
          }
        }
      }
    }
    expect(relativeL2(actual, expected)).toBeLessThan(1e-6);
  });
});

describe('layers hold methods', () => {
  test('BasicTransformerBlock builds MemoryEfficientCrossAttention, and setAttention changes both layers', () => {
    const root = Weights.root();
    const config = { dim: 8, heads: 2, dimHead: 4, crossAttentionDim: 8, attention: 'xformers' };
    const block = new BasicTransformerBlock(root, config);
    const { projections } = block.attn1;
    expect([block.attn1, block.attn2].every((layer) => layer instanceof MemoryEfficientCrossAttention)).toBe(true);
    block.setAttention('split-v1');
    expect([block.attn1, block.attn2].map((layer) => layer.method.attentionName)).toEqual(['split-v1', 'split-v1']);
    expect(block.attn1).not.toBeInstanceOf(MemoryEfficientCrossAttention);
    expect(block.attn1.projections).toBe(projections);
  });

  test('a cache gives nobody the keys of another context', () => {
    const projections = randomProjections(2, 4);
    const layer = createAttention('classic', projections);
    const cache = new KeyValueCache();
    const before = tf.memory().numTensors;
    tf.tidy(() => {
      const [x, context, other] = randomOperands({ batch: 1, heads: 2, dimHead: 4, queries: 5, keys: 7 });
      const expected = layer.forward(x, { encoderHiddenStates: context }).dataSync();
      for (let round = 0; round < 2; round++) {
        const actual = layer.forward(x, { encoderHiddenStates: context, cache });
        expect(actual.dataSync()).toEqual(expected);
      }
      expect(() => layer.forward(x, { encoderHiddenStates: other, cache })).toThrow(
        /\[KeyValueCache\] context expects .* take one cache for each context/,
      );
      cache.dispose();
      expect(layer.forward(x, { encoderHiddenStates: other, cache }).dataSync()).not.toEqual(expected);
      cache.dispose();
    });
    expect(tf.memory().numTensors).toBe(before);
  });
});
