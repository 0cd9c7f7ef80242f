import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { InvalidArgumentError } from '../../src/errors.js';
import { DiagonalGaussianDistribution } from '../../src/models/autoencoders/autoencoder_kl.js';
import { AutoencoderKL } from '../../src/models/index.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { MODEL_BACKEND } from '../support/backend.js';
import { relativeL2 } from '../support/compare.js';
import { digest, loadGenerated } from '../support/generated_weights.js';
import { loadReferenceCases, numbers, tensor } from '../support/reference_cases.js';

const cases = loadReferenceCases('test/fixtures/models/vae.safetensors');

describe('AutoencoderKL', () => {
  let vae: AutoencoderKL;

  beforeAll(async () => {
    await pickBackend(MODEL_BACKEND);
  });

  afterEach(() => {
    vae.dispose();
    expect(tf.memory().numTensors).toBe(0);
  });

  describe.each(['classic', 'memory-efficient'])("equals diffusers' with attention '%s'", (attention) => {
    test.each(cases)('$name', async ({ config, digest: expected, tensors }) => {
      vae = AutoencoderKL.fromConfig(config, { attention });
      await loadGenerated(vae);
      expect(digest(vae.parameters)).toBe(expected);

      const image = tensor<tf.Tensor4D>(tensors.image!);
      const distribution = vae.encode(image);
      const { mean, logvar } = distribution;
      const [mode, sample] = [distribution.mode(), distribution.sample(new TorchGenerator(5))];
      for (const [name, ours] of Object.entries({ mean, logvar, sample, mode })) {
        const reference = tensors[name === 'mode' ? 'mean' : name]!;
        expect(relativeL2(ours.dataSync(), numbers(reference))).toBeLessThan(1e-5);
      }
      distribution.dispose();

      const latents = tensor<tf.Tensor4D>(tensors.latents!);
      const decoded = vae.decode(latents);
      expect(relativeL2(decoded.dataSync(), numbers(tensors.out!))).toBeLessThan(1e-5);
      tf.dispose([image, mode, sample, latents, decoded]);
    });
  });

  test('samples without a generator differ', async () => {
    vae = AutoencoderKL.fromConfig(cases[0]!.config);
    await loadGenerated(vae);
    const image = tf.zeros<tf.Rank.R4>([1, 8, 8, 3]);
    const distribution = vae.encode(image);
    const [a, b] = [distribution.sample(), distribution.sample()];
    expect(relativeL2(a.dataSync(), b.dataSync())).toBeGreaterThan(0.1);
    tf.dispose([image, a, b]);
    distribution.dispose();
  });

  test.each([
    ['encode', [1, 8, 8, 4]],
    ['encode', [8, 8, 3]],
    ['decode', [1, 8, 8, 3]],
    ['decode', [8, 8, 4]],
  ] as const)('%s refuses a tensor [%p]', async (method, shape) => {
    vae = AutoencoderKL.fromConfig(cases[0]!.config);
    await loadGenerated(vae);
    const x: tf.Tensor4D = tf.zeros([...shape] as never);
    expect(() => vae[method](x)).toThrow(InvalidArgumentError);
    x.dispose();
  });
});

test('the logarithm of the variance of latents is between -30 and 20', () => {
  tf.tidy(() => {
    const { logvar } = new DiagonalGaussianDistribution(tf.tensor4d([1, 2, 3, 4, -100, 100, 0.5, -30.5], [1, 1, 1, 8]));
    expect([...logvar.dataSync()]).toEqual([-30, 20, 0.5, -30]);
  });
});
