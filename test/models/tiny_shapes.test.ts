import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../../src/models/index.js';
import { MODEL_BACKEND } from '../support/backend.js';
import { relativeL2, toNHWC } from '../support/compare.js';
import { loadSafetensors } from '../support/safetensors.js';

const root = 'weights/tiny-shapes';
const reference = loadSafetensors('test/fixtures/tiny-shapes/default.safetensors').tensors;

const numbers = (name: string) => reference[name]!.data as Float32Array;

/** A reference tensor [N,C,H,W], or [1,N,C,H,W] of a list, as [N,H,W,C]. */
function nhwc(name: string, index = 0): tf.Tensor4D {
  const { data, shape } = reference[name]!;
  const [n, c, h, w] = shape.slice(-4) as [number, number, number, number];
  const size = n * c * h * w;
  const part = (data as Float32Array).slice(index * size, (index + 1) * size);
  return tf.tensor4d(toNHWC(part, [n, c, h, w]), [n, h, w, c]);
}

function ids(name: string): number[][] {
  return Array.from({ length: reference[name]!.shape[0]! }, (_, i) =>
    Array.from((reference[name]!.data as Int32Array).slice(i * 77, (i + 1) * 77)),
  );
}

describe.each(['classic', 'memory-efficient'])('tiny-shapes, attention %s', (attention) => {
  let textEncoder: CLIPTextModel;
  let unet: UNet2DConditionModel;
  let vae: AutoencoderKL;

  beforeAll(async () => {
    await pickBackend(MODEL_BACKEND);
    textEncoder = await CLIPTextModel.fromPretrained(`${root}/text_encoder`);
    unet = await UNet2DConditionModel.fromPretrained(`${root}/unet`, { attention });
    vae = await AutoencoderKL.fromPretrained(`${root}/vae`, { attention });
  });

  afterAll(() => {
    for (const model of [textEncoder, unet, vae]) {
      model.dispose();
    }
    expect(tf.memory().numTensors).toBe(0);
  });

  test('text embeddings equal those of transformers', () => {
    const out = tf.tidy(() => textEncoder.forward([...ids('negative_ids'), ...ids('input_ids')]).lastHiddenState);
    expect(relativeL2(out.dataSync(), numbers('text_embeds'))).toBeLessThan(1e-5);
    out.dispose();
  });

  test("the first UNet output equals diffusers'", () => {
    const before = tf.memory().numTensors;
    const { data, shape } = reference.text_embeds!;
    const text = tf.tensor3d(data as Float32Array, shape as [number, number, number]);
    const sample = nhwc('unet_in');
    const expected = nhwc('unet_out');
    const out = unet.forward(sample, numbers('unet_t')[0]!, text);
    expect(relativeL2(out.dataSync(), expected.dataSync())).toBeLessThan(1e-5);
    tf.dispose([text, sample, expected, out]);
    expect(tf.memory().numTensors).toBe(before);
  });

  test("the decoded picture equals diffusers'", () => {
    const steps = reference.latents!.shape[0]! - 1;
    const latents = nhwc('latents', steps);
    const out = tf.tidy(() => {
      const decoded = vae.decode(tf.div(latents, vae.parsed.scalingFactor));
      return tf.clipByValue(tf.add(tf.div(decoded, 2), 0.5), 0, 1);
    });
    expect(relativeL2(out.dataSync(), numbers('image'))).toBeLessThan(1e-5);
    tf.dispose([latents, out]);
  });
});
