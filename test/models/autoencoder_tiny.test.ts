import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { ConfigError, InvalidArgumentError } from '../../src/errors.js';
import { AutoencoderTiny } from '../../src/models/index.js';
import { MODEL_BACKEND } from '../support/backend.js';
import { relativeL2 } from '../support/compare.js';
import { digest, loadGenerated } from '../support/generated_weights.js';
import { loadReferenceCases, numbers, type ReferenceCase, tensor } from '../support/reference_cases.js';

type TinyCase = ReferenceCase & { tile: number | null };
const cases = loadReferenceCases('test/fixtures/models/tiny_vae.safetensors') as TinyCase[];

describe('AutoencoderTiny', () => {
  let vae: AutoencoderTiny;

  beforeAll(async () => {
    await pickBackend(MODEL_BACKEND);
  });

  afterEach(() => {
    vae.dispose();
    expect(tf.memory().numTensors).toBe(0);
  });

  async function build(config: Record<string, unknown>): Promise<void> {
    vae = AutoencoderTiny.fromConfig(config);
    await loadGenerated(vae);
  }

  test.each(cases)("equals diffusers': $name", async ({ config, digest: expected, tile, tensors }) => {
    await build(config);
    expect(digest(vae.parameters)).toBe(expected);
    if (tile) {
      vae.enableTiling();
      vae.tileSampleMinSize = tile;
      vae.tileOverlapFactor = 0.25;
    }
    const [image, latents] = [tensor<tf.Tensor4D>(tensors.image!), tensor<tf.Tensor4D>(tensors.latents!)];
    const distribution = vae.encode(image);
    const [sample, mode, decoded] = [distribution.sample(), distribution.mode(), vae.decode(latents)];
    expect(relativeL2(sample.dataSync(), numbers(tensors.encoded!))).toBeLessThan(1e-5);
    expect(relativeL2(mode.dataSync(), numbers(tensors.encoded!))).toBeLessThan(1e-5);
    expect(relativeL2(decoded.dataSync(), numbers(tensors.out!))).toBeLessThan(1e-5);
    vae.enableSlicing();
    const sliced = vae.decode(latents);
    expect(relativeL2(sliced.dataSync(), numbers(tensors.out!))).toBeLessThan(1e-5);
    distribution.dispose();
    tf.dispose([image, latents, sample, mode, decoded, sliced]);
  });

  test('refuses pictures and latents of other channels', async () => {
    await build(cases[1]!.config);
    const x = tf.zeros<tf.Rank.R4>([1, 8, 8, 5]);
    expect(() => vae.encode(x)).toThrow(InvalidArgumentError);
    expect(() => vae.decode(x)).toThrow(/latents expects a tensor \[N,h,w,4\]/);
    x.dispose();
  });

  test.each([
    ['stages of different widths', { encoder_block_out_channels: [8, 16, 8, 8] }, /the same number for every stage/],
    ['blocks for other stages', { num_decoder_blocks: [1, 1] }, /num_decoder_blocks expects a list of 4/],
    ['another enlargement', { upsampling_scaling_factor: 3 }, /upsampling_scaling_factor/],
  ])('a configuration with %s is refused', async (_, config, message) => {
    await build(cases[1]!.config);
    expect(() => AutoencoderTiny.fromConfig(config)).toThrow(ConfigError);
    expect(() => AutoencoderTiny.fromConfig(config)).toThrow(message);
  });
});
