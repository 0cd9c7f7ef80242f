import { beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-wasm';
import { efficientDotProductAttention, TokenMerging } from '../../src/attention/index.js';
import { measurePeak } from '../../src/backends/peak_memory.js';
import { BasicTransformerBlock } from '../../src/models/index.js';
import { initRandom, Weights } from '../../src/nn/index.js';
import { checkpoint } from '../../src/ops/checkpoint.js';
import { relativeL2 } from '../support/compare.js';

const DIM = 12;

function block(checkpointed: boolean): BasicTransformerBlock {
  const root = Weights.root();
  const made = new BasicTransformerBlock(root.at('block'), {
    dim: DIM,
    heads: 3,
    dimHead: DIM / 3,
    crossAttentionDim: 5,
    attention: 'classic',
    checkpoint: checkpointed,
  });
  initRandom(root.parameters, 3);
  return made;
}

const random = (shape: number[], seed: number) => tf.randomNormal(shape, 0, 1, 'float32', seed);

beforeAll(async () => {
  await tf.setBackend('wasm');
});

describe('checkpoint', () => {
  test('gives the gradients of inputs and of weights that the function uses by itself', () => {
    const before = tf.memory().numTensors;
    tf.tidy(() => {
      const [x, unused, w] = [random([3, 4], 1), random([2], 2), random([4, 5], 3)] as [
        tf.Tensor,
        tf.Tensor,
        tf.Tensor,
      ];
      const f = (a: tf.Tensor) => tf.sigmoid(tf.matMul(tf.square(a), w));
      const whole = (g: typeof f) => (a: tf.Tensor) => tf.sum(tf.mul(tf.exp(g(a)), 3));
      const expected = tf.grads((a, _) => whole(f)(a!))([x, w]);
      const actual = tf.grads((a, _) => whole((y) => checkpoint((z) => f(z!), [y, unused], [w]))(a!))([x, w]);
      actual.forEach((gradient, i) => {
        expect(relativeL2(gradient.dataSync(), expected[i]!.dataSync())).toBeLessThan(1e-6);
      });
    });
    expect(tf.memory().numTensors).toBe(before);
  });

  test('works one inside of another', () => {
    tf.tidy(() => {
      const x = random([3, 4], 1);
      const inner = (a: tf.Tensor) => checkpoint((b) => tf.exp(tf.sin(b!)), [a]);
      const outer = (a: tf.Tensor) => checkpoint((b) => tf.square(inner(tf.mul(b!, 2))), [a]);
      const plain = (a: tf.Tensor) => tf.square(tf.exp(tf.sin(tf.mul(a, 2))));
      expect(relativeL2(tf.grad(outer)(x).dataSync(), tf.grad(plain)(x).dataSync())).toBeLessThan(1e-6);
    });
  });
});

describe('BasicTransformerBlock with checkpoint', () => {
  const inputs = () => [random([2, 30, DIM], 5), random([2, 7, 5], 6)] as [tf.Tensor3D, tf.Tensor3D];

  test.each([false, true])('gradients of inputs and of every parameter are equal; merged tokens: %p', (merging) => {
    const before = tf.memory().numTensors;
    const [plain, ours] = [block(false), block(true)];
    if (merging) {
      for (const each of [plain, ours]) {
        each.tokenMerging = new TokenMerging({ ratio: 0.5, mergeMlp: true });
      }
    }
    tf.tidy(() => {
      const size = { height: 5, width: 6 };
      const [x, context] = inputs();
      const gradients = (b: BasicTransformerBlock) => {
        const weights = b.parameters.map((parameter) => parameter.value);
        const f = (h: tf.Tensor, c: tf.Tensor) =>
          tf.mul(
            b.forward(h as tf.Tensor3D, {
              encoderHiddenStates: c as tf.Tensor3D,
              encoderAttentionBias: random([1, 1, 1, 7], 8),
              mapSize: size,
              originalSize: size,
            }),
            2,
          );
        return tf.grads((h, c) => f(h!, c!))([x, context, ...weights], random([2, 30, DIM], 7));
      };
      const expected = gradients(plain);
      const actual = gradients(ours);
      expect(actual.length).toBe(2 + 20);
      actual.forEach((gradient, i) => {
        expect(gradient.shape).toEqual(expected[i]!.shape);
        expect(relativeL2(gradient.dataSync(), expected[i]!.dataSync())).toBeLessThan(1e-5);
      });
    });
    for (const each of [...plain.parameters, ...ours.parameters]) {
      each.dispose();
    }
    expect(tf.memory().numTensors).toBe(before);
  });

  test('tf.variableGrads finds parameters that are variables, and an optimizer lowers the loss', () => {
    const ours = block(true);
    const variables = ours.parameters.map((parameter) => parameter.asVariable());
    const [x, context] = inputs();
    const loss = () => tf.mean(tf.square(ours.forward(x, { encoderHiddenStates: context }))) as tf.Scalar;
    const { grads } = tf.variableGrads(loss, variables);
    expect(Object.keys(grads).length).toBe(20);
    const losses: number[] = [];
    const optimizer = tf.train.sgd(0.05);
    for (let i = 0; i < 3; i++) {
      losses.push(optimizer.minimize(loss, true, variables)!.dataSync()[0]!);
    }
    expect(losses[1]).toBeLessThan(losses[0]!);
    expect(losses[2]).toBeLessThan(losses[1]!);
    tf.dispose([x, context, ...Object.values(grads)]);
    tf.disposeVariables();
  });

  test('a stack of blocks takes less memory at its peak', async () => {
    const peak = async (checkpointed: boolean) => {
      const blocks = Array.from({ length: 4 }, () => block(checkpointed));
      const [x, context] = [random([1, 200, DIM], 5), random([1, 7, 5], 6)] as [tf.Tensor3D, tf.Tensor3D];
      const f = (h: tf.Tensor) =>
        blocks.reduce((y, b) => b.forward(y, { encoderHiddenStates: context }), h as tf.Tensor3D) as tf.Tensor;
      const { value, peakBytes } = await measurePeak(() => tf.grad(f)(x));
      const gradient = value.dataSync();
      tf.dispose([x, context, value, ...blocks.flatMap((b) => b.parameters.map((parameter) => parameter.value))]);
      return { gradient, peakBytes };
    };
    const [plain, ours] = [await peak(false), await peak(true)];
    expect(relativeL2(ours.gradient, plain.gradient)).toBeLessThan(1e-5);
    expect(ours.peakBytes).toBeLessThan(plain.peakBytes / 2);
  });
});

test('efficientDotProductAttention with useCheckpoint takes less memory for its gradient', async () => {
  const peak = async (useCheckpoint: boolean, kvChunkSize?: number) => {
    const [q, k, v] = [1, 2, 3].map((seed) => random([4, 256, 8], seed)) as [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D];
    const f = (a: tf.Tensor, b: tf.Tensor, c: tf.Tensor) =>
      efficientDotProductAttention(a as tf.Tensor3D, b as tf.Tensor3D, c as tf.Tensor3D, {
        queryChunkSize: 64,
        kvChunkSize,
        useCheckpoint,
      });
    const { value, peakBytes } = await measurePeak(() => tf.grads(f)([q, k, v]));
    const gradients = value.map((gradient) => gradient.dataSync());
    tf.dispose([q, k, v, value]);
    return { gradients, peakBytes };
  };
  for (const kvChunkSize of [undefined, 100, 256]) {
    const [plain, ours] = [await peak(false, kvChunkSize), await peak(true, kvChunkSize)];
    ours.gradients.forEach((gradient, i) => {
      expect(relativeL2(gradient, plain.gradients[i]!)).toBeLessThan(1e-5);
    });
    expect(ours.peakBytes).toBeLessThan(plain.peakBytes / 2);
  }
});

test('efficientDotProductAttention rejects what makes no sense', () => {
  tf.tidy(() => {
    const x = tf.ones([2, 3, 4]) as tf.Tensor3D;
    expect(() => efficientDotProductAttention(x, tf.ones([2, 3, 5]), x)).toThrow(/got \[2,3,4\], \[2,3,5\], \[2,3,4\]/);
    expect(() => efficientDotProductAttention(x, x, x, { queryChunkSize: 0 })).toThrow(/queryChunkSize.*got 0/);
  });
});
