import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { UNet2DConditionModel } from '../../src/models/index.js';
import type { Parameter } from '../../src/nn/index.js';
import { StableDiffusionPipeline } from '../../src/pipelines/index.js';

const options = { numInferenceSteps: 3, seed: 5 };
const loaded = (parameters: readonly Parameter[]) => parameters.filter((p) => p.isLoaded).length;

describe('CPU offload', () => {
  let pipe: StableDiffusionPipeline;
  let resident: Uint8Array;

  beforeAll(async () => {
    pipe = await StableDiffusionPipeline.fromPretrained('weights/tiny-shapes', { backend: 'wasm' });
    resident = (await pipe('a red circle', options)).images[0]!.data;
  });

  afterAll(() => {
    pipe.dispose();
    expect(tf.memory().numTensors).toBe(0);
  });

  test('model by model: the others are not in memory, the picture is identical', async () => {
    await pipe.enableModelCpuOffload();
    expect(tf.memory().numTensors).toBe(0);
    const during: number[][] = [];
    const { images } = await pipe('a red circle', {
      ...options,
      callbackOnStepEnd: () => {
        during.push([pipe.textEncoder, pipe.unet, pipe.vae].map((model) => loaded(model.parameters)));
      },
    });
    expect(during).toEqual(new Array(3).fill([0, pipe.unet.parameters.length, 0]));
    expect(images[0]!.data).toEqual(resident);
    expect(tf.memory().numTensors).toBe(0);
  });

  test('block by block: between steps only what lies outside the blocks, the picture is identical', async () => {
    await pipe.enableSequentialCpuOffload();
    const during: number[] = [];
    const { images } = await pipe('a red circle', {
      ...options,
      callbackOnStepEnd: () => {
        during.push(loaded(pipe.unet.parameters));
      },
    });
    // conv_in, conv_norm_out, conv_out and the two layers of the time embedding, each with a bias
    expect(during).toEqual([10, 10, 10]);
    expect(images[0]!.data).toEqual(resident);
    expect(tf.memory().numTensors).toBe(0);
  });

  test('a forward pass that does not wait says what to call; one that does gives the same numbers', async () => {
    const { unet } = pipe;
    const sample = tf.randomNormal<tf.Rank.R4>([1, 16, 16, unet.parsed.inChannels], 0, 1, 'float32', 1);
    const text = tf.randomNormal<tf.Rank.R3>([1, 7, unet.parsed.crossAttentionDim[0]!], 0, 1, 'float32', 2);
    expect(() => unet.forward(sample, 9, text)).toThrow(/await predict\(\.\.\.\) instead of forward/);
    const waiting = await unet.withWeights(async () => {
      expect(loaded(unet.parameters)).toBe(10);
      return unet.predict(sample, 9, text);
    });
    unet.sequentialOffload = false;
    const whole = await unet.withWeights(() => unet.forward(sample, 9, text));
    unet.sequentialOffload = true;
    expect(waiting.dataSync()).toEqual(whole.dataSync());
    tf.dispose([sample, text, waiting, whole]);
    expect(tf.memory().numTensors).toBe(0);
  });

  test('an aborted call frees its weights, and everything comes back', async () => {
    const controller = new AbortController();
    const stopped = pipe('a red circle', {
      ...options,
      signal: controller.signal,
      callbackOnStepEnd: () => controller.abort(),
    });
    await expect(stopped).rejects.toThrow(/stopped/);
    expect(tf.memory().numTensors).toBe(0);
    await pipe.disableCpuOffload();
    expect((await pipe('a red circle', options)).images[0]!.data).toEqual(resident);
  });

  test('a model without files says so', async () => {
    const unet = UNet2DConditionModel.fromConfig(pipe.unet.config, { init: 'random' });
    await expect(unet.enableOffload()).rejects.toThrow(/loaded from files/);
    unet.dispose();
  });
});
