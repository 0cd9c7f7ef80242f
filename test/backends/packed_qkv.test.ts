import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { AttentionProjections, type CrossAttention, createAttention } from '../../src/attention/index.js';
import type { NativeBackend } from '../../src/backends/native/backend.js';
import { initRandom, Weights } from '../../src/nn/index.js';
import { memoryEfficientAttentionPacked, memoryEfficientAttentionTokens, packedQkv } from '../../src/ops/index.js';
import { relativeL2 } from '../support/compare.js';
import { NATIVE_BACKEND, nativeSuite } from '../support/native.js';
import { BOUND, type Impl, numbers, startNative, TYPES } from './support.js';

type Three<T> = { q: T; k: T; v: T };

nativeSuite(`packed queries, keys and values on ${NATIVE_BACKEND}`, () => {
  let backend: NativeBackend;
  beforeAll(async () => {
    backend = await startNative();
  });
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());

  const three = <T extends tf.Tensor>([q, k, v]: tf.Tensor[]) => ({ q, k, v }) as Three<T>;
  const project = ([x, ...rest]: tf.Tensor[], impl: Impl) =>
    packedQkv(x!, three(rest), { bias: rest[3] && three(rest.slice(3)), impl });

  describe.each(TYPES)('%s', (type) => {
    test.each([
      [[2, 9, 64], 64, false],
      [[1, 77, 40], 80, true],
      [[3, 5, 33], 7, true],
      [[17, 320], 320, false],
      [[1, 1, 1], 1, true],
    ] as [number[], number, boolean][])(
      'product of %j by three matrices with %d outputs, biases %s',
      (shape, out, biased) => {
        const features = shape[shape.length - 1]!;
        const inputs = [numbers(shape, 1), ...[2, 3, 4].map((seed) => numbers([features, out], seed, 0.2))];
        if (biased) {
          inputs.push(...[5, 6, 7].map((seed) => numbers([out], seed)));
        }
        const physical = inputs.map((x) => backend.toPhysical(x, type));
        const exact = physical.map((x) => backend.toPhysical(x, 'float32'));
        const expected = project(exact, 'composed');
        // the second time on weights that are packed already
        for (let round = 0; round < 2; round++) {
          const actual = project(physical, 'native');
          expect(actual.shape).toEqual(expected.shape);
          expect(backend.physicalType(actual)).toBe(type);
          expect(relativeL2(actual.dataSync(), expected.dataSync())).toBeLessThan(BOUND[type]);
        }
        physical.forEach((x, i) => {
          expect(x.dataSync()).toEqual(exact[i]!.dataSync());
        });
      },
    );

    test.each([
      [2, 37, 3, 40],
      [1, 129, 2, 17],
      [3, 64, 1, 8],
    ])('attention over packed tokens: batch %d, %d tokens, %d heads of %d', (batch, tokens, heads, d) => {
      const qkv = backend.toPhysical(numbers([batch, tokens, 3 * heads * d], 1), type) as tf.Tensor3D;
      const exact = backend.toPhysical(qkv, 'float32') as tf.Tensor3D;
      for (const bias of [undefined, numbers([batch, 1, 1, tokens], 2)]) {
        const actual = memoryEfficientAttentionPacked(qkv, heads, { bias, impl: 'native' });
        const expected = memoryEfficientAttentionPacked(exact, heads, { bias, impl: 'composed' });
        expect(actual.shape).toEqual([batch, tokens, heads * d]);
        expect(relativeL2(actual.dataSync(), expected.dataSync())).toBeLessThan(BOUND[type]);
      }
    });
  });

  test('attention reads packed tokens as it reads three tensors, to the last bit', () => {
    const qkv = numbers([2, 200, 3 * 80], 1) as tf.Tensor3D;
    const [q, k, v] = tf.split(qkv, 3, 2) as [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D];
    const packed = memoryEfficientAttentionPacked(qkv, 2, { impl: 'native' }).dataSync();
    expect(packed).toEqual(memoryEfficientAttentionTokens(q, k, v, 2, { impl: 'native' }).dataSync());
  });

  test('gradients equal those of the composition', () => {
    const inputs = [
      numbers([2, 19, 48], 1),
      ...[2, 3, 4].map((seed) => numbers([48, 48], seed, 0.2)),
      ...[5, 6, 7].map((seed) => numbers([48], seed)),
      numbers([2, 1, 19, 19], 8),
    ];
    const dy = numbers([2, 19, 48], 9);
    const by =
      (impl: Impl) =>
      (...all: tf.Tensor[]) =>
        memoryEfficientAttentionPacked(project(all.slice(0, 7), impl) as tf.Tensor3D, 3, { bias: all[7], impl });
    const expected = tf.grads(by('composed'))(inputs, dy);
    tf.grads(by('native'))(inputs, dy).forEach((gradient, i) => {
      expect(gradient.shape).toEqual(inputs[i]!.shape);
      // a bias of the keys moves every score of a query alike, so that its gradient is rounding errors
      const error = relativeL2(gradient.dataSync(), expected[i]!.dataSync());
      expect(i === 5 ? tf.max(tf.abs(gradient)).dataSync()[0] : error).toBeLessThan(1e-5);
    });
  });

  test('weights packed together serve the other classes, too, and cost their own bytes once', () => {
    const root = Weights.root();
    const projections = new AttentionProjections(root.at('attn'), { queryDim: 256, heads: 4, dimHead: 64, bias: true });
    initRandom(root.parameters, 1);
    const before = root.parameters.map((p) => p.value.dataSync().slice());
    const x = numbers([2, 50, 256], 2) as tf.Tensor3D;
    const run = (attention: CrossAttention) => tf.tidy(() => attention.forward(x).dataSync());
    const expected = run(createAttention('classic', projections));
    const inUse = backend.memoryInfo().bytesInUse;
    for (const name of ['memory-efficient', 'classic', 'auto', 'sdp', 'doggettx', 'sdp-no-mem'] as const) {
      expect(relativeL2(run(createAttention(name, projections)), expected)).toBeLessThan(2e-6);
    }
    // one packed copy of each matrix, whichever class packed it
    expect(backend.memoryInfo().bytesInUse - inUse).toBeLessThan(256 * 256);
    root.parameters.forEach((p, i) => {
      expect(p.value.dataSync()).toEqual(before[i]);
    });
    for (const p of root.parameters) {
      p.dispose();
    }
  });

  test('sizes that do not fit are typed errors', () => {
    const [x, w, wrong] = [numbers([2, 8], 1), numbers([8, 4], 2), numbers([8, 5], 3)] as tf.Tensor2D[];
    expect(() => packedQkv(x!, { q: w!, k: wrong!, v: w! })).toThrow(/weight of k needs shape \[8, 4\], got \[8,5\]/);
    expect(() => memoryEfficientAttentionPacked(tf.ones([1, 2, 10]), 2)).toThrow(/3 \* heads \* d.*\[1,2,10\]/);
  });
});
