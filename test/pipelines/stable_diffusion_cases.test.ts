import { readdirSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { createScheduler, type SchedulerMixin } from '../../src/schedulers/index.js';
import { relativeL2, toNHWC } from '../support/compare.js';
import { loadSafetensors } from '../support/safetensors.js';
import { caseSettings } from '../support/tiny_shapes_case.js';

const CASES = 'test/fixtures/tiny-shapes';

describe.each(['classic', 'memory-efficient'])("pictures of Python diffusers, attention '%s'", (attention) => {
  let pipe: StableDiffusionPipeline;
  let ownScheduler: SchedulerMixin;

  beforeAll(async () => {
    pipe = await StableDiffusionPipeline.fromPretrained('weights/tiny-shapes', { attention, backend: 'wasm' });
    ownScheduler = pipe.scheduler;
  });

  afterAll(() => {
    pipe.dispose();
    expect(tf.memory().numTensors).toBe(0);
  });

  const files = readdirSync(CASES).filter((file) => file.endsWith('.safetensors'));
  test.each(files)('%s: ids, every latent and the picture', async (file) => {
    const { tensors, metadata } = loadSafetensors(`${CASES}/${file}`);
    const { prompts, scheduler, schedulerConfig, ...options } = caseSettings(metadata);
    pipe.scheduler = scheduler ? createScheduler(scheduler, ownScheduler.config, schedulerConfig) : ownScheduler;
    const before = tf.memory().numTensors;

    const { inputIds } = pipe.tokenizer.tokenize(prompts, { padding: 'max_length', truncation: true });
    expect(inputIds.flat()).toEqual(Array.from(tensors.input_ids!.data as Int32Array));

    const errors: number[] = [];
    const { data, shape } = tensors.latents!;
    const size = shape.slice(1).reduce((a, b) => a * b, 1);
    const { images } = await pipe(prompts, {
      ...options,
      callbackOnStepEnd: ({ step, latents }) => {
        const expected = (data as Float32Array).slice((step + 1) * size, (step + 2) * size);
        errors.push(relativeL2(latents.dataSync(), toNHWC(expected, shape.slice(1))));
      },
    });
    expect(errors).toHaveLength(shape[0]! - 1);
    expect(Math.max(...errors)).toBeLessThan(1e-4);

    const pixels = tensors.image_u8!.data as Uint8Array;
    const drawn = images.flatMap((image) => Array.from(image.data));
    expect(drawn).toHaveLength(pixels.length);
    const off = drawn.filter((value, i) => Math.abs(value - pixels[i]!) > 1).length;
    expect(off / pixels.length).toBeLessThanOrEqual(0.001);
    expect(tf.memory().numTensors).toBe(before);
  });
});
