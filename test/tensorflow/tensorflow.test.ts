import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { describeBackends, pickBackend } from '../../src/backends/index.js';
import type { TensorFlowBackend } from '../../src/backends/tensorflow/register.js';
import { traits } from '../../src/backends/traits.js';
import { groupNorm, layerNorm, memoryEfficientAttention, memoryEfficientAttentionPacked } from '../../src/ops/index.js';
import { StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { createScheduler } from '../../src/schedulers/index.js';
import { setWarningHandler } from '../../src/utils/logging.js';
import { relativeL2 } from '../support/compare.js';
import { loadSafetensors } from '../support/safetensors.js';
import { caseSettings } from '../support/tiny_shapes_case.js';

const CASES = 'test/fixtures/tiny-shapes';
const warnings: string[] = [];

/** Ops of TensorFlow that `work` runs, by name. */
async function opsOf<T>(work: () => T | Promise<T>): Promise<{ value: T; count: Record<string, number> }> {
  const backend = tf.backend() as TensorFlowBackend;
  const run = backend.executeMultipleOutputs;
  const count: Record<string, number> = {};
  backend.executeMultipleOutputs = (name, ...rest) => {
    count[name] = (count[name] ?? 0) + 1;
    return run.call(backend, name, ...rest);
  };
  try {
    return { value: await work(), count };
  } finally {
    backend.executeMultipleOutputs = run;
  }
}

beforeAll(async () => {
  setWarningHandler((message) => warnings.push(message));
  await pickBackend('tensorflow');
});

let before: number;
beforeEach(() => {
  before = tf.memory().numTensors;
});
afterEach(() => expect(tf.memory().numTensors).toBe(before));

describe('the backend tensorflow', () => {
  test('takes our ops without a warning, and says its version', async () => {
    expect(warnings).toEqual([]);
    const found = (await describeBackends()).find(({ name }) => name === 'tensorflow');
    expect(found).toMatchObject({
      available: true,
      detail: expect.stringMatching(/^TensorFlow 2\.\d+\.\d+ on the processor$/),
    });
    await pickBackend('tensorflow');
    expect(traits()).toMatchObject({ isGpu: false, padsForwardOnly: true });
  });

  test.each(['linear', 'silu'] as const)('groupNorm and layerNorm equal their compositions, with %s', (activation) => {
    tf.tidy(() => {
      const x = tf.randomNormal([2, 5, 7, 24], 1, 2, 'float32', 1) as tf.Tensor4D;
      const [gamma, beta] = [2, 3].map((seed) => tf.randomNormal([24], 0, 1, 'float32', seed) as tf.Tensor1D);
      const grouped = (impl: 'native' | 'composed') =>
        groupNorm(x, gamma!, beta!, { groups: 6, epsilon: 1e-3, activation, impl });
      expect(relativeL2(grouped('native').dataSync(), grouped('composed').dataSync())).toBeLessThan(2e-6);
      const layered = (impl: 'native' | 'composed') => layerNorm(x, gamma!, beta!, { epsilon: 1e-3, impl });
      expect(relativeL2(layered('native').dataSync(), layered('composed').dataSync())).toBeLessThan(2e-6);
    });
  });

  test('packed attention with a bias and its gradient equal the composition', () => {
    tf.tidy(() => {
      const qkv = tf.randomNormal([2, 33, 3 * 4 * 8], 0, 1, 'float32', 1) as tf.Tensor3D;
      const bias = tf.randomNormal([1, 4, 1, 33], 0, 1, 'float32', 2);
      const dy = tf.randomNormal([2, 33, 32], 0, 1, 'float32', 3) as tf.Tensor3D;
      const f = (impl: 'native' | 'composed') => (x: tf.Tensor, b: tf.Tensor) =>
        memoryEfficientAttentionPacked(x as tf.Tensor3D, 4, { bias: b, impl });
      expect(relativeL2(f('native')(qkv, bias).dataSync(), f('composed')(qkv, bias).dataSync())).toBeLessThan(1e-6);
      const [ours, composed] = (['native', 'composed'] as const).map((impl) => tf.grads(f(impl))([qkv, bias], dy));
      ours!.forEach((gradient, i) => {
        expect(relativeL2(gradient.dataSync(), composed![i]!.dataSync())).toBeLessThan(2e-6);
      });
    });
  });

  test('a query without keys gives 0, and what an op refuses is an error that names it', () => {
    tf.tidy(() => {
      const q = tf.ones([1, 1, 2, 4]) as tf.Tensor4D;
      const hidden = memoryEfficientAttention(q, q, q, {
        bias: tf.fill([2, 2], Number.NEGATIVE_INFINITY),
        impl: 'native',
      });
      expect([...hidden.dataSync()]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
      const kernel = tf.getKernel('MemoryEfficientAttention', 'tensorflow')!.kernelFunc;
      const call = {
        inputs: { q, k: q, v: tf.ones([1, 1, 3, 4]) },
        backend: tf.backend(),
        attrs: { scale: 1, heads: 1 },
      };
      expect(() => kernel(call)).toThrow(/\[MemoryEfficientAttention\] k has 2 tokens and v 3/);
    });
  });
});

describe('pictures', () => {
  test.each(['memory-efficient', 'classic', 'sliced'] as const)(
    "with attention '%s': within one level of diffusers', with our op where it is asked for",
    async (attention) => {
      const { tensors, metadata } = loadSafetensors(`${CASES}/dpm_wide.safetensors`);
      const { prompts, scheduler, schedulerConfig, ...options } = caseSettings(metadata);
      const pipe = await StableDiffusionPipeline.fromPretrained('weights/tiny-shapes', {
        backend: 'tensorflow',
        attention,
      });
      pipe.scheduler = createScheduler(scheduler!, pipe.scheduler.config, schedulerConfig);
      const { value, count } = await opsOf(() => pipe(prompts, options));
      pipe.dispose();
      const drawn = value.images.flatMap(({ data }) => [...data]);
      const pixels = tensors.image_u8!.data as Uint8Array;
      expect(drawn).toHaveLength(pixels.length);
      expect(drawn.filter((level, i) => Math.abs(level - pixels[i]!) > 1).length / pixels.length).toBeLessThanOrEqual(
        0.001,
      );
      const attentions = (count.MemoryEfficientAttention ?? 0) + (count.MemoryEfficientAttentionPacked ?? 0);
      // the VAE and the text encoder keep their own attention
      expect(attentions > 0).toBe(attention === 'memory-efficient');
      expect(count.GroupNorm).toBeGreaterThan(0);
    },
  );
});
