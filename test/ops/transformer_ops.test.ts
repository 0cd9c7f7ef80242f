import { beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { geluTanh, layerNorm, linear, rmsNorm } from '../../src/ops/index.js';
import { relativeL2 } from '../support/compare.js';
import { workingBackends } from '../support/native.js';

const backends = await workingBackends('onednn', 'wasm', 'tensorflow');
const gamma = () => tf.tensor1d([1, 2, -1, 0.5]);

/** Values and gradients of torch 2.13 for x and dy below. */
const cases: [string, (x: tf.Tensor) => tf.Tensor, number[], number[]][] = [
  [
    'geluTanh',
    geluTanh,
    [-0.0036374, -0.158808, -0.1003246, 0.345714, 1.9545977, 0.0539828, -0.0454023, 3.9999299],
    [-0.0115843, -0.1659282, -0.3046459, 0.4336849, 0.3258298, -1.1590436, -0.0860992, 1.000335],
  ],
  [
    'layerNorm without scale and shift',
    (x) => layerNorm(x),
    [-1.5822241, -0.0479461, 0.5274081, 1.1027622, 0.4381465, -0.4156774, -1.3593776, 1.3369085],
    [-0.2142668, 1.0396056, -1.0792861, 0.2539473, 0.0548242, -0.8885528, 0.5592843, 0.2744443],
  ],
  [
    'rmsNorm',
    (x) => rmsNorm(x),
    [-1.8683971, -0.622799, -0.1556998, 0.3113995, 0.8163264, 0.0408163, -0.8163264, 1.6326529],
    [-0.1925012, 0.9738313, -0.6907407, 0.4472829, 0.0408503, -0.8204064, 0.4897619, 0.244966],
  ],
  [
    'rmsNorm with a scale',
    (x) => rmsNorm(x, gamma()),
    [-1.8683971, -1.2455981, 0.1556998, 0.1556998, 0.8163264, 0.0816326, 0.8163264, 0.8163264],
    [-0.6680931, 2.0608988, 0.5152247, 0.3708484, -0.0203486, -1.6397928, -0.2653656, -0.0815136],
  ],
];

describe.each(backends)('ops of diffusion transformers on %s equal torch', (backend) => {
  beforeAll(async () => {
    await pickBackend(backend);
  });

  test.each(cases)('%s', (_, op, value, gradient) => {
    const before = tf.memory().numTensors;
    tf.tidy(() => {
      const x = tf.tensor2d([-3, -1, -0.25, 0.5, 2, 0.1, -2, 4], [2, 4]);
      const dy = tf.tensor2d([1, 2, -1, 0.5, 0.3, -2, 1, 1], [2, 4]);
      expect(relativeL2(op(x).dataSync(), value)).toBeLessThan(1e-6);
      expect(relativeL2(tf.grad(op)(x, dy).dataSync(), gradient)).toBeLessThan(2e-6);
    });
    expect(tf.memory().numTensors).toBe(before);
  });

  test('linear takes gelu_tanh and adds the residual after it', () => {
    tf.tidy(() => {
      const [x, weight, bias] = [tf.ones([3, 2]), tf.tensor2d([1, 2, -3, 4], [2, 2]), tf.tensor1d([0.5, -1])];
      const residual = tf.fill([3, 2], 7);
      const actual = linear(x, weight, { bias, residual, activation: 'gelu_tanh' });
      const expected = tf.add(geluTanh(tf.add(tf.matMul(x as tf.Tensor2D, weight), bias)), 7);
      expect(relativeL2(actual.dataSync(), expected.dataSync())).toBeLessThan(1e-6);
    });
  });

  test('a scale of another size is refused', () => {
    tf.tidy(() => {
      expect(() => rmsNorm(tf.ones([2, 3]), gamma())).toThrow(/\[rmsNorm\] gamma has 4 numbers/);
      expect(() => layerNorm(tf.ones([2, 3]), gamma())).toThrow(/\[layerNorm\] gamma has 4 numbers/);
    });
  });
});
