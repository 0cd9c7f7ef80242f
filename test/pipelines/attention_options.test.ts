import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { ATTENTION_NAMES, applyTokenMerging, removeTokenMerging } from '../../src/attention/index.js';
import { InvalidArgumentError } from '../../src/errors.js';
import { UNet2DConditionModel } from '../../src/models/index.js';
import { StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { relativeL2 } from '../support/compare.js';

let pipe: StableDiffusionPipeline;

/** Latents after two steps, as numbers. */
async function latents(options: { prompt?: string } = {}): Promise<Float32Array> {
  const prompt = options.prompt ?? 'a red circle';
  const { images } = await pipe(prompt, { seed: 5, numInferenceSteps: 2, outputType: 'latent' });
  const data = images.dataSync() as Float32Array;
  images.dispose();
  return data;
}

/** The pixels of a decoded picture. */
async function pixels(): Promise<Float32Array> {
  const { images } = await pipe('a red circle', { seed: 5, numInferenceSteps: 1, outputType: 'tensor' });
  const data = images.dataSync() as Float32Array;
  images.dispose();
  return data;
}

beforeAll(async () => {
  pipe = await StableDiffusionPipeline.fromPretrained('weights/tiny-shapes', { attention: 'classic', backend: 'wasm' });
});

afterAll(() => {
  pipe.dispose();
});

describe('setAttention', () => {
  test('every class gives the same picture, in the UNet and the VAE', async () => {
    pipe.setAttention('classic');
    const expected = await pixels();
    for (const name of ATTENTION_NAMES) {
      pipe.setAttention(name);
      expect(relativeL2(await pixels(), expected)).toBeLessThan(1e-5);
    }
  });

  test('the text encoder, too, computes by the class that was set', async () => {
    pipe.setAttention('split-v1');
    await latents();
    const layers = pipe.textEncoder.attentionLayers;
    expect(layers.length).toBeGreaterThan(0);
    expect(layers.every(({ taken }) => taken === 'split-v1')).toBe(true);
    pipe.enableAttentionSlicing('max');
    await latents();
    expect(layers.every(({ taken }) => taken === 'sliced')).toBe(true);
    pipe.disableAttentionSlicing();
    pipe.setAttention('auto');
    await latents();
    expect(layers.every(({ taken }) => taken === 'memory-efficient')).toBe(true);
  });

  test('statistics say which class computed', async () => {
    pipe.setAttention('split-v1');
    await pixels();
    const layers = 2 * pipe.unet.transformerBlocks.length;
    expect(pipe.attentionStatistics).toEqual({ 'split-v1': layers, classic: 1 });
    pipe.setAttention({ name: 'sdp', freeMemory: () => 1000 });
    await pixels();
    expect(pipe.attentionStatistics).toEqual({ 'memory-efficient': layers + 1 });
    pipe.setAttention('auto');
    await pixels();
    expect(pipe.attentionStatistics).toEqual({ 'memory-efficient': layers + 1 });
  });

  test('an unknown name or option changes nothing', async () => {
    pipe.setAttention('sub-quadratic');
    expect(() => pipe.setAttention('flash')).toThrow(/'flash' is not known, use one of: classic/);
    expect(() => pipe.setAttention({ name: 'sliced', sliceSize: 0 })).toThrow(InvalidArgumentError);
    expect(() => pipe.setAttention({ name: 'sliced', sliceSize: 99 })).toThrow(/at most the layer's 4 heads, got 99/);
    await latents();
    expect(Object.keys(pipe.attentionStatistics)).toEqual(['sub-quadratic']);
  });

  test('a setting that only some blocks can take changes none', () => {
    const unet = UNet2DConditionModel.fromConfig({
      block_out_channels: [32, 64],
      down_block_types: ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D'],
      up_block_types: ['CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
      attention_head_dim: [8, 4],
      layers_per_block: 1,
      cross_attention_dim: 16,
    });
    unet.setAttention('sub-quadratic');
    const before = unet.transformerBlocks.map((block) => block.attn1);
    expect(() => unet.setAttention({ name: 'sliced', sliceSize: 8 })).toThrow(/at most the layer's 4 heads, got 8/);
    expect(() => unet.setAttentionSlice(8)).toThrow(/at most the layer's 4 heads, got 8/);
    expect(unet.transformerBlocks.every((block, i) => block.attn1 === before[i])).toBe(true);
    unet.setAttentionSlice(4);
    unet.setAttentionSlice(null);
    const classes = unet.transformerBlocks.map((block) => block.attn1.method.constructor);
    expect(classes).toEqual(before.map((attention) => attention.method.constructor));
    unet.dispose();
  });

  test('too little memory is an error that names class and size, and the next picture works', async () => {
    pipe.setAttention({ name: 'classic', freeMemory: () => 400 * 1024 });
    await expect(latents()).rejects.toThrow(
      /'classic' needs .* for scores of 2 x 4 x 256 x 256, 400 KB is free; \d+ of .* would fit/,
    );
    const { numTensors } = tf.memory();
    pipe.setAttention('classic');
    await latents();
    expect(tf.memory().numTensors).toBe(numTensors);
  });
});

describe('attention slicing', () => {
  test('slices and goes back to what was before', async () => {
    pipe.setAttention('sdp-no-mem');
    const expected = await latents();
    for (const size of ['auto', 'max', 3] as const) {
      pipe.enableAttentionSlicing(size);
      expect(relativeL2(await latents(), expected)).toBeLessThan(1e-5);
      expect(Object.keys(pipe.attentionStatistics)).toEqual(['sliced']);
    }
    pipe.disableAttentionSlicing();
    expect(await latents()).toEqual(expected);
    expect(Object.keys(pipe.attentionStatistics)).toEqual(['sdp-no-mem']);
    expect(() => pipe.enableAttentionSlicing(5)).toThrow(/at most the layer's 4 heads/);
  });

  test("diffusers' names of memory-efficient attention", async () => {
    pipe.enableXformersMemoryEfficientAttention({ attentionOp: 'composed' });
    await latents();
    expect(Object.keys(pipe.attentionStatistics)).toEqual(['memory-efficient']);
    pipe.disableXformersMemoryEfficientAttention();
  });
});

describe('the environment', () => {
  const variable = 'USE_MEMORY_EFFICIENT_ATTENTION';
  const { [variable]: before } = process.env;
  afterAll(() => {
    if (before === undefined) {
      delete process.env[variable];
    } else {
      process.env[variable] = before;
    }
  });

  test.each([
    ['1', undefined, 'memory-efficient'],
    ['0', undefined, 'classic'],
    ['1', 'split-v1', 'split-v1'],
  ])('%s with option %s gives %s', async (value, option, expected) => {
    process.env[variable] = value;
    const other = await StableDiffusionPipeline.fromPretrained('weights/tiny-shapes', { attention: option });
    const { images } = await other('x', { seed: 1, numInferenceSteps: 1, outputType: 'latent' });
    images.dispose();
    expect(Object.keys(other.attentionStatistics)).toEqual([expected]);
    other.dispose();
  });
});

describe('token merging', () => {
  test('changes the picture a little, repeats it, and is gone without a trace', async () => {
    pipe.setAttention('classic');
    const expected = await latents();
    applyTokenMerging(pipe, { ratio: 0 });
    expect(await latents()).toEqual(expected);
    applyTokenMerging(pipe, { ratio: 0.5, seed: 3 });
    const merged = await latents();
    const error = relativeL2(merged, expected);
    expect(error).toBeGreaterThan(1e-4);
    expect(error).toBeLessThan(0.5);
    expect(await latents()).toEqual(merged);
    removeTokenMerging(pipe);
    expect(await latents()).toEqual(expected);
  });
});
