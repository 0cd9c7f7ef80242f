import { readdirSync } from 'node:fs';
import { afterEach, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { type NativeTensorBackend, type PhysicalType, supportsPhysicalTypes } from '../../src/backends/types.js';
import { OutOfMemoryError } from '../../src/errors.js';
import { StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { createScheduler } from '../../src/schedulers/index.js';
import { nativeSuite } from '../support/native.js';
import { loadSafetensors } from '../support/safetensors.js';
import { type CaseSettings, caseSettings } from '../support/tiny_shapes_case.js';

const CASES = 'test/fixtures/tiny-shapes';
const files = readdirSync(CASES).filter((file) => file.endsWith('.safetensors'));

function nativeBackend(): NativeTensorBackend {
  const backend = tf.backend();
  if (!supportsPhysicalTypes(backend)) throw new Error('the native backend is not the active one');
  return backend;
}

async function draw(pipe: StableDiffusionPipeline, settings: CaseSettings): Promise<number[]> {
  const { prompts, scheduler, schedulerConfig, ...options } = settings;
  if (scheduler) {
    pipe.scheduler = createScheduler(scheduler, pipe.scheduler.config, schedulerConfig);
  }
  const { images } = await pipe(prompts, options);
  return images.flatMap((image) => Array.from(image.data));
}

nativeSuite('pictures on the onednn backend', () => {
  let pipe: StableDiffusionPipeline;
  const load = async (dtype: PhysicalType) => {
    pipe = await StableDiffusionPipeline.fromPretrained('weights/tiny-shapes', { backend: 'onednn', dtype });
  };

  afterEach(() => {
    pipe.dispose();
    expect(tf.memory().numTensors).toBe(0);
  });

  test.each(files)("%s in float32: within one level of diffusers'", async (file) => {
    await load('float32');
    const { tensors, metadata } = loadSafetensors(`${CASES}/${file}`);
    const pixels = tensors.image_u8!.data as Uint8Array;
    const drawn = await draw(pipe, caseSettings(metadata));
    const off = drawn.filter((value, i) => Math.abs(value - pixels[i]!) > 1).length;
    expect(drawn).toHaveLength(pixels.length);
    expect(off / pixels.length).toBeLessThanOrEqual(0.001);
  });

  test.each(files)('%s in bfloat16: PSNR of at least 35 dB', async (file) => {
    await load('bfloat16');
    const { tensors, metadata } = loadSafetensors(`${CASES}/${file}`);
    const pixels = tensors.image_u8!.data as Uint8Array;
    const drawn = await draw(pipe, caseSettings(metadata));
    const squares = drawn.reduce((sum, value, i) => sum + (value - pixels[i]!) ** 2, 0);
    expect(10 * Math.log10((255 * 255 * pixels.length) / squares)).toBeGreaterThanOrEqual(35);
  });

  test('a memory limit below need is a typed error that leaks nothing, and the next picture works', async () => {
    await load('float32');
    const backend = nativeBackend();
    const options = { numInferenceSteps: 2, seed: 0 };
    const [first] = (await pipe('a red circle', options)).images;
    const { bytesInUse } = backend.memoryInfo();
    const { numTensors } = tf.memory();
    backend.setMemoryLimit(bytesInUse + 2 ** 18);
    try {
      await expect(pipe('a red circle', options)).rejects.toThrow(OutOfMemoryError);
    } finally {
      backend.setMemoryLimit(0);
    }
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(backend.memoryInfo().bytesInUse).toBe(bytesInUse);
    const [again] = (await pipe('a red circle', options)).images;
    expect(again!.data).toEqual(first!.data);
  });
});
