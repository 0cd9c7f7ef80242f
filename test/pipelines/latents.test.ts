import '@tensorflow/tfjs-backend-cpu';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { AutoencoderKL } from '../../src/models/index.js';
import { decodeLatents, encodeImage } from '../../src/pipelines/common/latents.js';
import { noiseSource } from '../../src/pipelines/common/noise.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { relativeL2 } from '../support/compare.js';

/** FLUX and Stable Diffusion 3 have a shift; 1.x and 2.x, whose references are in pipelines.safetensors, have none. */
describe('latents of a VAE with a scaling and a shift factor', () => {
  let vae: AutoencoderKL;
  let before: number;

  beforeAll(async () => {
    await tf.setBackend('cpu');
    const config = { block_out_channels: [8], norm_num_groups: 4, latent_channels: 4, sample_size: 8 };
    vae = AutoencoderKL.fromConfig({ ...config, scaling_factor: 0.3, shift_factor: 0.2 }, { init: 'random', seed: 1 });
  });
  afterAll(() => vae.dispose());
  beforeEach(() => {
    before = tf.memory().numTensors;
  });
  afterEach(() => {
    expect(tf.memory().numTensors).toBe(before);
  });

  test('are (sample - shift) * scale', () => {
    tf.tidy(() => {
      const image = tf.randomUniform<tf.Rank.R4>([1, 8, 8, 3], -1, 1, 'float32', 2);
      const distribution = vae.encode(image);
      const sample = distribution.sample(new TorchGenerator(3)).dataSync();
      const latents = encodeImage(vae, image, new TorchGenerator(3));
      expect(
        relativeL2(
          latents.dataSync(),
          [...sample].map((x) => (x - 0.2) * 0.3),
        ),
      ).toBeLessThan(1e-6);
    });
  });

  test('are decoded as latents / scale + shift, and -1..1 becomes 0..1', () => {
    tf.tidy(() => {
      const latents = tf.randomNormal<tf.Rank.R4>([1, 8, 8, 4], 0, 1, 'float32', 4);
      const decoded = vae.decode(tf.add(tf.div(latents, 0.3), 0.2)).dataSync();
      const expected = [...decoded].map((x) => Math.min(Math.max(x / 2 + 0.5, 0), 1));
      expect(relativeL2(decodeLatents(vae, latents).dataSync(), expected)).toBeLessThan(1e-6);
    });
  });
});

test('one seed for each picture makes a generator for each', () => {
  const { generator, seeds } = noiseSource('test', { seed: [3, 4n] }, 2);
  expect(seeds).toEqual([3n, 4n]);
  const draws = (generator as TorchGenerator[]).map((each) => each.randn([3]));
  expect(draws).toEqual([3, 4].map((seed) => new TorchGenerator(seed).randn([3])));
});
