import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { BackendError, OutOfMemoryError } from '../../src/errors.js';
import { StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { createScheduler } from '../../src/schedulers/index.js';
import { relativeL2 } from '../support/compare.js';
import { loadSafetensors } from '../support/safetensors.js';
import { caseSettings } from '../support/tiny_shapes_case.js';
import { type Gpu, startWebGpu } from './support.js';

const CASES = 'test/fixtures/tiny-shapes';
/** Relative L2 error of ddim_negative by PyTorch 2.13 in float16 (on the CPU) against its own in float32. */
const TORCH_HALF_ERROR = 3.78e-4;

describe('pictures on the webgpu backend', () => {
  let gpu: Gpu;
  let pipe: StableDiffusionPipeline;
  const load = async (dtype: 'float32' | 'float16') => {
    pipe = await StableDiffusionPipeline.fromPretrained('weights/tiny-shapes', { backend: 'webgpu', dtype });
  };
  const draw = async (name: string) => {
    const { tensors, metadata } = loadSafetensors(`${CASES}/${name}.safetensors`);
    const { prompts, scheduler, schedulerConfig, ...options } = caseSettings(metadata);
    pipe.scheduler = createScheduler(scheduler!, pipe.scheduler.config, schedulerConfig);
    const { images } = await pipe(prompts, { ...options, outputType: 'tensor' });
    const drawn = (await images.data()) as Float32Array;
    images.dispose();
    return { drawn, exact: tensors.image!.data as Float32Array, pixels: tensors.image_u8!.data as Uint8Array };
  };

  beforeAll(async () => {
    gpu = await startWebGpu();
  });
  afterEach(async () => {
    pipe.dispose();
    expect(await gpu.complaints()).toEqual([]);
    expect(tf.memory().numTensors).toBe(0);
    expect(gpu.backend.memoryInfo().bytesInUse).toBe(0);
  });

  test("float32: within one level of diffusers'", async () => {
    await load('float32');
    const { drawn, pixels } = await draw('dpm_wide');
    const off = drawn.filter((value, i) => Math.abs(Math.round(value * 255) - pixels[i]!) > 1).length;
    expect(drawn).toHaveLength(pixels.length);
    expect(off / pixels.length).toBeLessThanOrEqual(0.001);
  });

  test("float16: no further from diffusers' float32 than PyTorch's float16", async () => {
    if (!gpu.backend.description.hasFloat16) {
      await expect(load('float16')).rejects.toThrow(/has no float16 in shaders/);
      return;
    }
    await load('float16');
    const { drawn, exact } = await draw('ddim_negative');
    expect(relativeL2(drawn, exact)).toBeLessThanOrEqual(TORCH_HALF_ERROR);
  });

  test('repeated pictures leave tensors and bytes where they were, bit for bit the same', async () => {
    await load('float32');
    const options = { numInferenceSteps: 2, seed: 0 };
    const [first] = (await pipe('a red circle', options)).images;
    const before = { ...gpu.backend.memoryInfo(), tensors: tf.memory().numTensors };
    for (let i = 0; i < 4; i++) {
      const [again] = (await pipe('a red circle', options)).images;
      expect(again!.data).toEqual(first!.data);
    }
    const after = { ...gpu.backend.memoryInfo(), tensors: tf.memory().numTensors };
    expect([after.bytesInUse, after.tensors, after.peakBytes]).toEqual([
      before.bytesInUse,
      before.tensors,
      before.peakBytes,
    ]);
    expect(after.poolBytes).toBeLessThanOrEqual(before.poolBytes * 1.25);
  });

  test('a memory limit below need is a typed error that leaks nothing, and the next picture works', async () => {
    await load('float32');
    const options = { numInferenceSteps: 1, seed: 0 };
    const [first] = (await pipe('a red circle', options)).images;
    const { bytesInUse } = gpu.backend.memoryInfo();
    const { numTensors } = tf.memory();
    gpu.backend.setMemoryLimit(bytesInUse + 2 ** 18);
    try {
      await expect(pipe('a red circle', options)).rejects.toThrow(OutOfMemoryError);
    } finally {
      gpu.backend.setMemoryLimit(0);
    }
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(gpu.backend.memoryInfo().bytesInUse).toBe(bytesInUse);
    const [again] = (await pipe('a red circle', options)).images;
    expect(again!.data).toEqual(first!.data);
  });

  test('a lost GPU is a typed error, and the backend starts again', async () => {
    await load('float32');
    gpu.backend.device.destroy();
    await expect(pipe('a red circle', { numInferenceSteps: 1 })).rejects.toThrow(BackendError);
    await expect(pipe('a red circle', { numInferenceSteps: 1 })).rejects.toThrow(/the GPU stopped .* pickBackend/);
    pipe.dispose();
    gpu = await startWebGpu();
    await load('float32');
    const { images } = await pipe('a red circle', { numInferenceSteps: 1 });
    expect(images).toHaveLength(1);
  });
});
