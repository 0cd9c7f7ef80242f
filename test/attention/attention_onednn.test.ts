import { beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import {
  type AttentionName,
  type AttentionOptions,
  AttentionProjections,
  CrossAttention,
  createAttention,
} from '../../src/attention/index.js';
import type { NativeBackend } from '../../src/backends/native/backend.js';
import { measurePeak } from '../../src/backends/peak_memory.js';
import { freeMemory } from '../../src/backends/traits.js';
import { OutOfMemoryError } from '../../src/errors.js';
import { Weights } from '../../src/nn/index.js';
import { startNative } from '../backends/support.js';
import { relativeL2 } from '../support/compare.js';
import { nativeSuite } from '../support/native.js';
import { type LayerShape, randomOperands, randomProjections } from './support.js';

const settings: AttentionOptions[] = [
  { name: 'sliced', sliceSize: 3 },
  { name: 'split-v1' },
  { name: 'doggettx' },
  { name: 'doggettx', freeMemory: () => 2 ** 20 },
  { name: 'invokeai' },
  { name: 'sub-quadratic', queryChunkSize: 100 },
  { name: 'sub-quadratic', queryChunkSize: 100, chunkThreshold: 0 },
  { name: 'memory-efficient', attentionOp: 'native' },
  { name: 'memory-efficient', attentionOp: 'composed' },
  { name: 'sdp' },
  { name: 'sdp-no-mem' },
  { name: 'auto' },
];

const shapes: LayerShape[] = [
  { batch: 1, heads: 5, dimHead: 40, queries: 259, keys: 259 },
  { batch: 3, heads: 3, dimHead: 24, queries: 131, keys: 77 },
];

const label = ({ freeMemory: free, ...rest }: AttentionOptions) =>
  JSON.stringify(rest) + (free ? ', little memory' : '');

nativeSuite('attention on the onednn backend', () => {
  let backend: NativeBackend;
  beforeAll(async () => {
    backend = await startNative();
  });

  describe.each(settings.map((options) => [label(options), options] as const))('%s', (_, options) => {
    test.each(shapes)('equals classic in value and gradients: %j', (shape) => {
      const projections = randomProjections(shape.heads, shape.dimHead);
      tf.tidy(() => {
        const operands = randomOperands(shape);
        const bias = tf.randomNormal([shape.batch, 1, 1, shape.keys], 0, 1, 'float32', 9);
        const dy = tf.randomNormal(operands[0].shape, 0, 1, 'float32', 4);
        for (const given of [operands, [...operands, bias]] as tf.Tensor[][]) {
          const by =
            (attention: CrossAttention) =>
            (...[q, k, v, b]: tf.Tensor[]) =>
              attention.attend(q as tf.Tensor3D, k as tf.Tensor3D, v as tf.Tensor3D, b);
          const [ours, classic] = [createAttention(options, projections), new CrossAttention(projections)].map(by);
          expect(relativeL2(ours!(...given).dataSync(), classic!(...given).dataSync())).toBeLessThan(1e-5);
          const expected = tf.grads(classic!)(given, dy);
          tf.grads(ours!)(given, dy).forEach((gradient, i) => {
            expect(relativeL2(gradient.dataSync(), expected[i]!.dataSync())).toBeLessThan(1e-5);
          });
        }
      });
    });
  });

  test('sdp-no-mem gives the same bits from run to run and for any number of threads', () => {
    tf.tidy(() => {
      const [q, k, v] = randomOperands({ batch: 2, heads: 3, dimHead: 40, queries: 777, keys: 777 });
      const attention = createAttention('sdp-no-mem', randomProjections(3, 40));
      const bits = () => new Uint32Array((attention.attend(q, k, v).dataSync() as Float32Array).slice().buffer);
      const { threads } = backend.addon.describe();
      const expected = bits();
      try {
        for (const count of [1, 2, 3, 1, threads]) {
          backend.addon.setThreads(count);
          expect(bits()).toEqual(expected);
        }
      } finally {
        backend.addon.setThreads(threads);
      }
    });
  });

  test('peak memory, with the scratch memory of the kernels, has the order of the formulas', async () => {
    const shape = { batch: 2, heads: 8, dimHead: 40, queries: 1024, keys: 1024, bytes: 4 };
    const operand = 2 * 1024 * 320 * 4;
    const [q, k, v] = randomOperands(shape);
    const peak = async (options: AttentionOptions) => {
      const attention = createAttention(options, randomProjections(8, 40));
      const { value, peakBytes } = await measurePeak(() => attention.attend(q, k, v));
      value.dispose();
      expect(peakBytes).toBeGreaterThan(0.75 * attention.requiredBytes(shape));
      expect(peakBytes).toBeLessThan(attention.requiredBytes(shape) + 10 * operand);
      return peakBytes;
    };
    const order: AttentionOptions[] = [
      { name: 'memory-efficient' },
      { name: 'split-v1' },
      { name: 'sub-quadratic', queryChunkSize: 256 },
      { name: 'doggettx', freeMemory: () => 100 * 2 ** 20 },
      { name: 'classic' },
    ];
    const peaks: number[] = [];
    for (const options of order) {
      peaks.push(await peak(options));
    }
    expect(peaks).toEqual([...peaks].sort((a, b) => a - b));
    expect(peaks[0]).toBeLessThan(5 * operand);
    tf.dispose([q, k, v]);
  });

  test('upcast attention keeps the scores of 16-bit operands in float32', () => {
    tf.tidy(() => {
      const shape = { batch: 2, heads: 2, dimHead: 40, queries: 64, keys: 64 };
      const half = randomOperands(shape).map((x) => backend.toPhysical(x, 'bfloat16')) as [
        tf.Tensor3D,
        tf.Tensor3D,
        tf.Tensor3D,
      ];
      const exact = half.map((x) => backend.toPhysical(x, 'float32')) as typeof half;
      const build = (upcast: boolean) =>
        new AttentionProjections(Weights.root().at('a'), { queryDim: 80, heads: 2, dimHead: 40, upcast });
      const expected = createAttention('classic', build(false))
        .attend(...exact)
        .dataSync();
      for (const name of ['classic', 'sliced', 'sub-quadratic', 'memory-efficient'] as const) {
        const out = createAttention(name, build(true)).attend(...half);
        expect(backend.physicalType(out)).toBe('bfloat16');
        // one rounding of the result
        expect(relativeL2(out.dataSync(), expected)).toBeLessThan(2.5e-3);
      }
      const rounded = createAttention('classic', build(false))
        .attend(...half)
        .dataSync();
      expect(relativeL2(rounded, expected)).toBeGreaterThan(4e-3);
    });
  });

  test('in 16 bits the formulas count 2 bytes', () => {
    tf.tidy(() => {
      const shape = { batch: 1, heads: 4, dimHead: 40, queries: 200, keys: 200 };
      const operands = randomOperands(shape);
      const half = operands.map((x) => backend.toPhysical(x, 'bfloat16')) as typeof operands;
      const free = 2 * 4 * 200 * 200 * 3;
      const steps = (inputs: typeof operands) => {
        const attention = createAttention({ name: 'classic', freeMemory: () => free }, randomProjections(4, 40));
        return () => attention.attend(...inputs);
      };
      expect(steps(operands)).toThrow(OutOfMemoryError);
      expect(steps(half)).not.toThrow();
    });
  });

  test('a memory limit is what is free: an error that names the class, and slices that follow it', () => {
    tf.tidy(() => {
      const shape = { batch: 1, heads: 8, dimHead: 8, queries: 1500, keys: 1500 };
      const [q, k, v] = randomOperands(shape);
      const run = (name: AttentionName) =>
        createAttention({ name, queryChunkSize: 256 }, randomProjections(8, 8)).attend(q, k, v);
      const expected = run('memory-efficient').dataSync();
      const { bytesInUse } = backend.memoryInfo();
      try {
        backend.setMemoryLimit(bytesInUse + 60 * 2 ** 20);
        expect(freeMemory()).toBeLessThanOrEqual(60 * 2 ** 20);
        expect(() => run('classic')).toThrow(
          /'classic' needs 137 MB .* 1 x 8 x 1500 x 1500.* \d+ of these 1500 tokens/,
        );
        for (const name of ['doggettx', 'split-v1', 'sub-quadratic', 'sdp', 'auto'] as const) {
          expect(relativeL2(run(name).dataSync(), expected)).toBeLessThan(1e-5);
        }
      } finally {
        backend.setMemoryLimit(0);
      }
      expect(relativeL2(run('classic').dataSync(), expected)).toBeLessThan(1e-5);
    });
  });
});
