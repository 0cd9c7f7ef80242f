import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { ConfigError, InvalidArgumentError } from '../../src/errors.js';
import { LatentConsistencyModelPipeline, TINY_SHAPES } from '../../src/index.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { loadSafetensors } from '../support/safetensors.js';

const FILE = 'test/fixtures/pipeline_latent_consistency.safetensors';
const { lcm } = JSON.parse(loadSafetensors(FILE).metadata.kinds!) as Record<string, PipelineConfigs>;
const SIZE = { height: 16, width: 16, seed: 1 };
let dir: string;
let pipe: LatentConsistencyModelPipeline;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(dir, lcm!);
  pipe = await LatentConsistencyModelPipeline.fromPretrained(dir, { backend: 'wasm' });
});
afterAll(async () => {
  pipe.dispose();
  expect(tf.memory().numTensors).toBe(0);
  await rm(dir, { recursive: true });
});

test('four steps at a guidance of 8.5, unless told', async () => {
  const { images, timings } = await pipe('a', SIZE);
  expect(timings.steps).toHaveLength(4);
  expect(images[0]!.metadata.parameters).toContain('Steps: 4, Sampler: LCM, CFG scale: 8.5');
});

test.each([
  { negativePrompt: 'b' },
  { eta: 0.5 },
  { guidanceRescale: 0.5 },
  { negativeGuidanceMinSigma: 1 },
  { sigmas: [1] },
  { originalInferenceSteps: 0.5 },
  { originalInferenceSteps: 2000 },
  { originalInferenceSteps: 3 },
])('%j, which it has no use for or cannot take, is refused', async (options) => {
  const before = tf.memory().numTensors;
  await expect(pipe('a', { ...SIZE, ...(options as object) })).rejects.toThrow(InvalidArgumentError);
  expect(tf.memory().numTensors).toBe(before);
});

test('a UNet that was not distilled is refused, and nothing is left', async () => {
  const before = tf.memory().numTensors;
  const loading = LatentConsistencyModelPipeline.fromPretrained(TINY_SHAPES, { backend: 'wasm' });
  await expect(loading).rejects.toThrow(ConfigError);
  await expect(loading).rejects.toThrow(/time_cond_proj_dim.*StableDiffusionPipeline draws with it/);
  expect(tf.memory().numTensors).toBe(before);
});

test('is saved under its own name, and loads again', async () => {
  const saved = join(dir, 'saved');
  await pipe.savePretrained(saved);
  const index = JSON.parse(await readFile(join(saved, 'model_index.json'), 'utf8'));
  expect(index).toMatchObject({
    _class_name: 'LatentConsistencyModelPipeline',
    scheduler: ['diffusers', 'LCMScheduler'],
    safety_checker: [null, null],
    requires_safety_checker: false,
  });
  const again = await LatentConsistencyModelPipeline.fromPretrained(saved, { backend: 'wasm' });
  const [first, second] = [await pipe('a', SIZE), await again('a', SIZE)];
  expect(second.images[0]!.data).toEqual(first.images[0]!.data);
  again.dispose();
});
