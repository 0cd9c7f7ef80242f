import { beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { memoryEfficientAttention, memoryEfficientAttentionTokens } from '../../src/ops/index.js';
import { relativeL2 } from '../support/compare.js';
import { workingBackends } from '../support/native.js';

type Shape = { batch: number; heads: number; nq: number; nk: number; d: number; dv: number };

function random(shape: number[], seed: number): tf.Tensor4D {
  return tf.randomNormal(shape as [number, number, number, number], 0, 1, 'float32', seed);
}

/** softmax(q k^T scale + bias) v with the whole matrix, on plain ops. */
function plain(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, scale: number, bias?: tf.Tensor): tf.Tensor {
  const scores = tf.mul(tf.matMul(q, k, false, true), scale);
  return tf.matMul(tf.softmax(bias ? tf.add(scores, bias) : scores), v);
}

const shapes: Shape[] = [
  { batch: 1, heads: 1, nq: 1, nk: 1, d: 8, dv: 8 },
  { batch: 2, heads: 3, nq: 37, nk: 53, d: 16, dv: 24 },
  { batch: 3, heads: 2, nq: 64, nk: 7, d: 40, dv: 40 },
];
const blocks = { query: 10, key: 16 };

/** The composition on tfjs's cpu backend, the kernel where the native engine is built, the op where tfjs-node is installed. */
const implementations = [
  { impl: 'composed', backend: 'cpu' },
  { impl: 'native', backend: 'onednn' },
  { impl: 'native', backend: 'tensorflow' },
] as const;
const available: string[] = await workingBackends('cpu', 'onednn');

describe.each(implementations.filter(({ backend }) => available.includes(backend)))(
  '$impl attention on $backend',
  (setting) => {
    const { impl, backend } = setting;

    beforeAll(async () => {
      await pickBackend(backend);
    });

    for (const s of shapes) {
      for (const biasShape of [
        null,
        [1, 1, s.nq, s.nk],
        [s.batch, 1, 1, s.nk],
        [s.batch, s.heads, s.nq, s.nk],
        [s.nk],
      ]) {
        test(`equals plain attention and its gradient: ${JSON.stringify(s)} bias ${biasShape}`, async () => {
          const before = tf.memory().numTensors;
          tf.tidy(() => {
            const q = random([s.batch, s.heads, s.nq, s.d], 1);
            const k = random([s.batch, s.heads, s.nk, s.d], 2);
            const v = random([s.batch, s.heads, s.nk, s.dv], 3);
            const dy = random([s.batch, s.heads, s.nq, s.dv], 4);
            const scale = 1 / Math.sqrt(s.d);
            const inputs: tf.Tensor[] = [q, k, v];
            if (biasShape) {
              inputs.push(random(biasShape, 5));
            }
            const ours = (...[a, b, c, bias]: tf.Tensor[]) =>
              memoryEfficientAttention(a as tf.Tensor4D, b as tf.Tensor4D, c as tf.Tensor4D, { bias, blocks, impl });
            const reference = (...[a, b, c, bias]: tf.Tensor[]) => plain(a!, b!, c!, scale, bias);
            expect(relativeL2(ours(...inputs).dataSync(), reference(...inputs).dataSync())).toBeLessThan(1e-6);
            const actual = tf.grads(ours)(inputs, dy);
            const expected = tf.grads(reference)(inputs, dy);
            actual.forEach((gradient, i) => {
              expect(gradient.shape).toEqual(expected[i]!.shape);
              // the gradient of a single key's score is exactly zero, so the error is measured against dy there
              const norm = relativeL2(expected[i]!.dataSync(), new Float32Array(expected[i]!.size));
              const difference = relativeL2(tf.sub(gradient, expected[i]!).dataSync(), new Float32Array(gradient.size));
              expect(difference).toBeLessThan(2e-6 * Math.max(norm, 1));
            });
          });
          expect(tf.memory().numTensors).toBe(before);
        });
      }
    }

    test('a hidden key has no influence, and a row with every key hidden gives 0 and finite gradients', () => {
      tf.tidy(() => {
        const [q, k, v] = [1, 2, 3].map((seed) => random([1, 1, 4, 8], seed)) as [
          tf.Tensor4D,
          tf.Tensor4D,
          tf.Tensor4D,
        ];
        const h = Number.NEGATIVE_INFINITY;
        const bias = tf.tensor4d([0, 0, h, h, h, h, h, h, h, h, h, 0, 0, 0, 0, 0], [1, 1, 4, 4]);
        const f = (a: tf.Tensor, b: tf.Tensor, c: tf.Tensor) =>
          memoryEfficientAttention(a as tf.Tensor4D, b as tf.Tensor4D, c as tf.Tensor4D, {
            bias,
            blocks: { query: 3, key: 2 },
            impl,
          });
        const out = f(q, k, v);
        const row = (x: tf.Tensor, i: number) => tf.slice(x, [0, 0, i, 0], [1, 1, 1, 8]).dataSync();
        expect(Array.from(row(out, 1))).toEqual(new Array(8).fill(0));
        expect(relativeL2(row(out, 2), row(v, 3))).toBeLessThan(1e-6);
        for (const gradient of tf.grads(f)([q, k, v])) {
          expect(gradient.dataSync().every(Number.isFinite)).toBe(true);
        }
      });
    });

    test('NaN and infinity reach the output', () => {
      tf.tidy(() => {
        const q = tf.tensor4d([Number.NaN, 1, 1, 1], [1, 1, 2, 2]);
        const k = tf.ones([1, 1, 3, 2]) as tf.Tensor4D;
        const out = memoryEfficientAttention(q, k, k, { impl }).dataSync();
        expect(out[0]).toBeNaN();
        expect(out[2]).toBeCloseTo(1);
        const infinite = memoryEfficientAttention(
          tf.fill([1, 1, 1, 2], Number.POSITIVE_INFINITY) as tf.Tensor4D,
          k,
          k,
          {
            impl,
          },
        );
        expect(infinite.dataSync()[0]).toBeNaN();
      });
    });

    test('tokens give what separate heads give', () => {
      tf.tidy(() => {
        const [q, k, v] = [1, 2, 3].map((seed) => tf.randomNormal([2, 19, 24], 0, 1, 'float32', seed)) as [
          tf.Tensor3D,
          tf.Tensor3D,
          tf.Tensor3D,
        ];
        const heads = (x: tf.Tensor3D) => tf.transpose(tf.reshape(x, [2, 19, 3, 8]), [0, 2, 1, 3]);
        const expected = tf.transpose(plain(heads(q), heads(k), heads(v), 1 / Math.sqrt(8)), [0, 2, 1, 3]);
        expect(
          relativeL2(memoryEfficientAttentionTokens(q, k, v, 3, { impl }).dataSync(), expected.dataSync()),
        ).toBeLessThan(1e-6);
      });
    });

    test('wrong shapes are typed errors', () => {
      tf.tidy(() => {
        const x = tf.ones([1, 2, 3, 4]) as tf.Tensor4D;
        const y = tf.ones([1, 2, 3, 5]) as tf.Tensor4D;
        expect(() => memoryEfficientAttention(x, y, x)).toThrow(/equal d of q and k.*\[1,2,3,5\]/);
        expect(() => memoryEfficientAttention(x, x, x, { bias: tf.ones([2, 2]) })).toThrow(
          /bias expects a shape that broadcasts/,
        );
      });
    });
  },
);

test('a missing kernel is a typed error', async () => {
  await pickBackend('cpu');
  tf.tidy(() => {
    const x = tf.ones([1, 2, 3, 4]) as tf.Tensor4D;
    expect(() => memoryEfficientAttention(x, x, x, { impl: 'native' })).toThrow(/no such kernel/);
  });
});
