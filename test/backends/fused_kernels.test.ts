import { afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import type { NativeBackend } from '../../src/backends/native/backend.js';
import type { PhysicalType } from '../../src/backends/types.js';
import {
  type Conv2dOptions,
  conv2d,
  groupNorm,
  type LinearOptions,
  layerNorm,
  linear,
  rmsNorm,
  timestepEmbedding,
} from '../../src/ops/index.js';
import { relativeL2 } from '../support/compare.js';
import { NATIVE_BACKEND, nativeSuite } from '../support/native.js';
import { BOUND, type Impl, numbers, startNative, TYPES } from './support.js';

nativeSuite(`fused kernels of ${NATIVE_BACKEND} equal their composed twins`, () => {
  let backend: NativeBackend;
  beforeAll(async () => {
    backend = await startNative();
  });
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());

  /** Native on tensors of the physical type against float32 composition on the same (rounded) numbers. */
  function compare(op: (inputs: tf.Tensor[], impl: Impl) => tf.Tensor, inputs: tf.Tensor[], type: PhysicalType): void {
    const physical = inputs.map((x) => backend.toPhysical(x, type));
    const exact = physical.map((x) => backend.toPhysical(x, 'float32'));
    const actual = op(physical, 'native');
    const expected = op(exact, 'composed');
    expect(actual.shape).toEqual(expected.shape);
    expect(backend.physicalType(actual)).toBe(type);
    expect(relativeL2(actual.dataSync(), expected.dataSync())).toBeLessThan(BOUND[type]);
  }

  const convolutions: [string, number[], number[], Conv2dOptions & { temb?: boolean; res?: boolean; b?: boolean }][] = [
    ['3x3', [1, 7, 9, 5], [3, 3, 5, 11], { padding: 1 }],
    ['3x3 batch 3 with everything', [3, 9, 7, 32], [3, 3, 32, 48], { padding: 1, b: true, temb: true, res: true }],
    ['3x3 and silu', [2, 6, 5, 16], [3, 3, 16, 16], { padding: 1, b: true, activation: 'silu', res: true }],
    ['stride 2', [2, 9, 8, 6], [3, 3, 6, 10], { padding: 1, stride: 2, b: true }],
    [
      'stride 2 padded at one end',
      [1, 8, 8, 6],
      [3, 3, 6, 10],
      {
        padding: [
          [0, 1],
          [0, 1],
        ],
        stride: 2,
        b: true,
      },
    ],
    ['1x1', [2, 5, 7, 33], [1, 1, 33, 17], { b: true, res: true }],
    ['5x5', [1, 9, 8, 3], [5, 5, 3, 4], { padding: 2 }],
    ['upsampled 3x3', [2, 5, 7, 12], [3, 3, 12, 20], { padding: 1, upsample: 2, b: true }],
    ['upsampled 3x3 with residual', [1, 4, 4, 16], [3, 3, 16, 16], { padding: 1, upsample: 2, b: true, res: true }],
    ['upsampled 1x1', [1, 4, 3, 8], [1, 1, 8, 8], { upsample: 2, b: true }],
    ['3x3 of wide layers', [2, 9, 11, 80], [3, 3, 80, 96], { padding: 1, b: true, temb: true, res: true }],
    ['3x3 of wide layers and silu', [3, 14, 13, 160], [3, 3, 160, 64], { padding: 1, b: true, activation: 'silu' }],
    ['3x3 of a large image', [1, 200, 201, 64], [3, 3, 64, 64], { padding: 1, b: true }],
    ['upsampled 3x3 of wide layers', [2, 9, 7, 64], [3, 3, 64, 128], { padding: 1, upsample: 2, b: true, res: true }],
    ['1 pixel', [1, 1, 1, 4], [3, 3, 4, 4], { padding: 1, b: true }],
  ];
  for (const type of TYPES) {
    for (const [name, xShape, filterShape, options] of convolutions) {
      test(`convolution ${name}, ${type}`, () => {
        const { temb, res, b, ...rest } = options;
        const x = numbers(xShape, 1);
        const filter = numbers(filterShape, 2, 1 / Math.sqrt(filterShape[0]! * filterShape[1]! * filterShape[2]!));
        const channels = filterShape[3]!;
        const outputShape = conv2d(x as tf.Tensor4D, filter as tf.Tensor4D, { ...rest, impl: 'composed' }).shape;
        const extra = [
          b ? numbers([channels], 3) : undefined,
          temb ? numbers([xShape[0]!, channels], 4) : undefined,
          res ? numbers(outputShape, 5) : undefined,
        ];
        const given = [x, filter, ...extra.filter((t) => t !== undefined)];
        compare(
          ([image, weights, ...others], impl) => {
            const next = () => others.shift();
            const bias = b ? (next() as tf.Tensor1D) : undefined;
            const timeEmbedding = temb ? (next() as tf.Tensor2D) : undefined;
            const residual = res ? (next() as tf.Tensor4D) : undefined;
            return conv2d(image as tf.Tensor4D, weights as tf.Tensor4D, {
              ...rest,
              bias,
              timeEmbedding,
              residual,
              impl,
            });
          },
          given,
          type,
        );
      });
    }

    const activations: LinearOptions['activation'][] = ['linear', 'silu', 'gelu', 'quick_gelu', 'geglu'];
    for (const activation of activations) {
      for (const [rows, features, outputs] of [
        [[3, 77], 40, 96],
        [[1], 1, 2],
        [[2, 5, 3], 129, 66],
      ] as [number[], number, number][]) {
        test(`linear ${activation} ${[...rows, features]} -> ${outputs}, ${type}`, () => {
          const width = activation === 'geglu' ? outputs / 2 : outputs;
          compare(
            ([x, weight, bias, residual], impl) =>
              linear(x!, weight as tf.Tensor2D, { bias: bias as tf.Tensor1D, residual: residual!, activation, impl }),
            [
              numbers([...rows, features], 1),
              numbers([features, outputs], 2, 1 / Math.sqrt(features)),
              numbers([outputs], 3),
              numbers([...rows, width], 4),
            ],
            type,
          );
        });
      }
    }

    for (const activation of ['linear', 'silu'] as const) {
      for (const [shape, groups] of [
        [[2, 9, 7, 64], 32],
        [[3, 5, 30], 3],
        [[1, 33, 31, 96], 32],
        [[2, 70], 7],
      ] as [number[], number][]) {
        test(`group norm ${activation} of [${shape}], ${type}`, () => {
          compare(
            ([x, gamma, beta], impl) =>
              groupNorm(x!, gamma as tf.Tensor1D, beta as tf.Tensor1D, { groups, activation, impl }),
            [tf.add(numbers(shape, 1), 3), tf.add(numbers([shape.at(-1)!], 2, 0.1), 1), numbers([shape.at(-1)!], 3)],
            type,
          );
        });
      }
    }

    for (const shape of [
      [2, 77, 40],
      [5, 1283],
      [3, 1],
    ]) {
      test(`layer norm of [${shape}], ${type}`, () => {
        compare(
          ([x, gamma, beta], impl) => layerNorm(x!, gamma as tf.Tensor1D, beta as tf.Tensor1D, { impl }),
          [tf.add(numbers(shape, 1), 2), numbers([shape.at(-1)!], 2), numbers([shape.at(-1)!], 3)],
          type,
        );
      });

      test(`root mean square norm of [${shape}], ${type}`, () => {
        const [x, gamma] = [numbers(shape, 1, 0.01), numbers([shape.at(-1)!], 2)];
        const epsilon = 1e-4;
        compare(([x, gamma], impl) => rmsNorm(x!, gamma as tf.Tensor1D, { epsilon, impl }), [x, gamma], type);
        compare(([x], impl) => rmsNorm(x!, null, { epsilon, impl }), [x], type);
      });
    }
  }

  test('group norm keeps its precision when the mean is far from zero', () => {
    const x = tf.add(numbers([1, 64, 64, 32], 7), 1000);
    const [gamma, beta] = [tf.ones([32]) as tf.Tensor1D, tf.zeros([32]) as tf.Tensor1D];
    const y = groupNorm(x, gamma, beta, { groups: 32, impl: 'native' });
    const { mean, variance } = tf.moments(tf.reshape(y, [64 * 64, 32]), 0);
    expect(relativeL2(variance.dataSync(), new Float32Array(32).fill(1))).toBeLessThan(1e-3);
    expect(Math.max(...tf.abs(mean).dataSync())).toBeLessThan(1e-3);
  });

  test('non-finite numbers spread as in the composition', () => {
    const values = numbers([1, 4, 4, 8], 3).dataSync().slice();
    values[5] = Number.NaN;
    values[77] = Number.POSITIVE_INFINITY;
    const x = tf.tensor4d(values, [1, 4, 4, 8]);
    const [gamma, beta] = [tf.ones([8]) as tf.Tensor1D, tf.zeros([8]) as tf.Tensor1D];
    const filter = numbers([3, 3, 8, 4], 4) as tf.Tensor4D;
    const finite = (y: tf.Tensor) => Array.from(y.dataSync(), (v) => Number.isFinite(v));
    for (const op of [
      (impl: Impl) => groupNorm(x, gamma, beta, { groups: 4, impl }),
      (impl: Impl) => layerNorm(x, gamma, beta, { impl }),
      (impl: Impl) => conv2d(x, filter, { padding: 1, impl }),
      (impl: Impl) => linear(x, numbers([8, 6], 5) as tf.Tensor2D, { activation: 'geglu', impl }),
    ]) {
      expect(finite(op('native'))).toEqual(finite(op('composed')));
    }
  });

  test.each([
    [{ dim: 320, flipSinToCos: true, downscaleFreqShift: 0 }],
    [{ dim: 33 }],
    [{ dim: 8, scale: 2, maxPeriod: 100 }],
  ])('timestep embedding %j', (options) => {
    const t = tf.tensor1d([0, 1, 999, 500.5]);
    const native = timestepEmbedding(t, { ...options, impl: 'native' });
    const composed = timestepEmbedding(t, { ...options, impl: 'composed' });
    expect(relativeL2(native.dataSync(), composed.dataSync())).toBeLessThan(1e-6);
  });
});
