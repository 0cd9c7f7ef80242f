import { readdirSync, readFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import type { BackendName } from '../../src/backends/index.js';
import { type PhysicalType, supportsPhysicalTypes } from '../../src/backends/types.js';
import { StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { createScheduler } from '../../src/schedulers/index.js';
import { relativeL2 } from '../support/compare.js';
import { loadSafetensors } from '../support/safetensors.js';
import { caseSettings } from '../support/tiny_shapes_case.js';

const CASES = 'test/fixtures/tiny-shapes';
const HALF = `${CASES}/float16_errors.json`;
/** The case with the fewest steps; the emulator takes seconds for each. */
const SHORT = 'dpm_wide.safetensors';
const all = readdirSync(CASES).filter((file) => file.endsWith('.safetensors'));
const files = process.env.TFJS_DIFFUSERS_CUDA_ALL ? all : [SHORT];
/** PyTorch's own error in float16 on the CPU, from test/reference/half_pictures.py. */
const pytorch = JSON.parse(readFileSync(HALF, 'utf8')) as Record<string, number>;
const suite = process.env.TFJS_DIFFUSERS_TEST_BACKEND === 'cuda' ? describe : describe.skip;

async function draw(file: string, dtype: PhysicalType): Promise<Uint8ClampedArray | Uint8Array> {
  const { prompts, scheduler, schedulerConfig, ...options } = caseSettings(
    loadSafetensors(`${CASES}/${file}`).metadata,
  );
  const pipe = await StableDiffusionPipeline.fromPretrained('weights/tiny-shapes', {
    backend: 'cuda' as BackendName,
    dtype,
  });
  try {
    if (scheduler) {
      pipe.scheduler = createScheduler(scheduler, pipe.scheduler.config, schedulerConfig);
    }
    const { images } = await pipe(prompts, options);
    return Uint8Array.from(images.flatMap(({ data }) => Array.from(data)));
  } finally {
    pipe.dispose();
  }
}

suite('pictures on the backend cuda', () => {
  afterEach(() => {
    expect(tf.memory().numTensors).toBe(0);
    const backend = tf.backend();
    expect(supportsPhysicalTypes(backend) && backend.memoryInfo().bytesInUse).toBe(0);
  });

  test.each(files)("%s in float32: within one level of diffusers'", async (file) => {
    const pixels = loadSafetensors(`${CASES}/${file}`).tensors.image_u8!.data as Uint8Array;
    const drawn = await draw(file, 'float32');
    expect(drawn).toHaveLength(pixels.length);
    expect(drawn.filter((value, i) => Math.abs(value - pixels[i]!) > 1)).toHaveLength(0);
  });

  test.each(files.filter((file) => file in pytorch))(
    "%s in float16: no further from diffusers' float32 than PyTorch's float16",
    async (file) => {
      const exact = (loadSafetensors(`${CASES}/${file}`).tensors.image!.data as Float32Array).map((x) => x * 255);
      // Levels are rounded here, PyTorch's numbers are not: a uniform error of half a level.
      const rounding = Math.sqrt(1 / 12) / Math.sqrt(exact.reduce((sum, x) => sum + x * x, 0) / exact.length);
      const drawn = Float32Array.from(await draw(file, 'float16'));
      expect(relativeL2(drawn, exact)).toBeLessThanOrEqual(Math.hypot(pytorch[file]!, rounding));
    },
  );
});
