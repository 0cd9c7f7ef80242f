import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { AutoencoderKL } from '../../src/models/index.js';
import { MODEL_BACKEND } from '../support/backend.js';
import { relativeL2, toNHWC } from '../support/compare.js';
import { loadSafetensors } from '../support/safetensors.js';

const reference = loadSafetensors('test/fixtures/models/vae_tiling.safetensors').tensors;

function nhwc(name: string): tf.Tensor4D {
  const { data, shape } = reference[name]!;
  const [n, c, h, w] = shape as [number, number, number, number];
  return tf.tensor4d(toNHWC(data as Float32Array, shape), [n, h, w, c]);
}

describe('AutoencoderKL in slices and tiles', () => {
  let vae: AutoencoderKL;

  beforeAll(async () => {
    await pickBackend(MODEL_BACKEND);
    vae = await AutoencoderKL.fromPretrained('weights/tiny-shapes/vae');
  });

  afterAll(() => {
    vae.dispose();
    expect(tf.memory().numTensors).toBe(0);
  });

  test("tiles are decoded and blended as diffusers'", () => {
    const [latents, expected] = [nhwc('latents'), nhwc('decoded')];
    const whole = vae.decode(latents);
    vae.enableTiling();
    const tiles = vae.decode(latents);
    vae.disableTiling();
    expect(relativeL2(tiles.dataSync(), expected.dataSync())).toBeLessThan(1e-5);
    // a result that ignored the tiles would be the whole one
    expect(relativeL2(whole.dataSync(), expected.dataSync())).toBeGreaterThan(1e-3);
    tf.dispose([latents, expected, whole, tiles]);
  });

  test("tiles are encoded and blended as diffusers'", () => {
    const [image, expected] = [nhwc('image'), nhwc('moments')];
    vae.enableTiling();
    const distribution = vae.encode(image);
    vae.disableTiling();
    const mean = tf.tidy(() => tf.split(expected, 2, 3)[0]!.dataSync());
    expect(relativeL2(distribution.mean.dataSync(), mean)).toBeLessThan(1e-5);
    distribution.dispose();
    tf.dispose([image, expected]);
  });

  test('slices give the same numbers as the whole batch', () => {
    const latents = tf.randomNormal([3, 8, 10, 4], 0, 1, 'float32', 1) as tf.Tensor4D;
    const whole = vae.decode(latents);
    vae.enableSlicing();
    const slices = vae.decode(latents);
    vae.disableSlicing();
    expect(relativeL2(slices.dataSync(), whole.dataSync())).toBeLessThan(1e-6);
    tf.dispose([latents, whole, slices]);
  });
});
