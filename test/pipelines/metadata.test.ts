import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import sharp from 'sharp';
import { StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { createScheduler } from '../../src/schedulers/index.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { loadSafetensors } from '../support/safetensors.js';

const { metadata } = loadSafetensors('test/fixtures/pipelines.safetensors');
const { sd15 } = JSON.parse(metadata.kinds!) as Record<string, PipelineConfigs>;

let dir: string;
let pipe: StableDiffusionPipeline;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(dir, sd15!);
  pipe = await StableDiffusionPipeline.fromPretrained(dir, { backend: 'wasm' });
});

afterAll(async () => {
  pipe.dispose();
  await rm(dir, { recursive: true });
});

test('a picture carries the prompt and settings, by which it can be drawn again', async () => {
  const options = {
    negativePrompt: 'a square',
    height: 16,
    width: 24,
    numInferenceSteps: 4,
    guidanceScale: 5.5,
    seed: 7,
  };
  const { images, seeds } = await pipe('a red circle', { ...options, clipSkip: 1 });
  expect(seeds).toEqual([7n]);
  const [image] = images;
  // PNDM calls the model once more than it makes steps; the steps that were asked for are what counts
  expect(image!.metadata.parameters).toBe(
    'a red circle\nNegative prompt: a square\n' +
      `Steps: 4, Sampler: PLMS, CFG scale: 5.5, Seed: 7, Size: 24x16, Model: ${basename(dir)}, Clip skip: 2, ` +
      'Version: tfjs-diffusers',
  );
  const { data, info } = await sharp(await image!.toBuffer('png'))
    .raw()
    .toBuffer({ resolveWithObject: true });
  expect([info.width, info.height, info.channels]).toEqual([24, 16, 3]);
  expect(new Uint8Array(data)).toEqual(new Uint8Array(image!.data));
});

test('every picture of a batch says its prompt, negative prompt and seed', async () => {
  const own = pipe.scheduler;
  pipe.scheduler = createScheduler('EulerDiscreteScheduler', own.config, { use_karras_sigmas: true });
  const { images, seeds } = await pipe(['one', 'two'], {
    ...{ height: 16, width: 16, numInferenceSteps: 2, numImagesPerPrompt: 2, guidanceRescale: 0.5 },
    negativePrompt: ['not one', 'not two'],
    seed: [1, 2, 3, 2n ** 63n],
  });
  pipe.scheduler = own;
  expect(seeds).toEqual([1n, 2n, 3n, 2n ** 63n]);
  const texts = images.map((image) => image.metadata.parameters!);
  expect(texts.map((text) => text.split('\n')[0])).toEqual(['one', 'one', 'two', 'two']);
  expect(texts.map((text) => text.split('\n')[1])).toEqual(
    ['not one', 'not one', 'not two', 'not two'].map((negative) => `Negative prompt: ${negative}`),
  );
  expect(texts.map((text) => text.match(/Seed: (\d+)/)![1])).toEqual(['1', '2', '3', '9223372036854775808']);
  for (const text of texts) {
    expect(text).toContain('Sampler: Euler, ');
    expect(text).toContain('Schedule type: Karras');
    expect(text).toContain('CFG rescale: 0.5');
  }
});

test('a seed that nobody chose is told, and draws the same picture again', async () => {
  const options = { height: 16, width: 16, numInferenceSteps: 2 };
  const { images, seeds } = await pipe('a', options);
  expect(images[0]!.metadata.parameters).toContain(`Seed: ${seeds[0]}`);
  const again = await pipe('a', { ...options, seed: seeds[0]! });
  expect(again.images[0]!.data).toEqual(images[0]!.data);
  const other = await pipe('a', options);
  expect(other.seeds).not.toEqual(seeds);
});

test('one generator for a batch goes on where it stopped; one for each picture gives what each gives alone', async () => {
  const options = { height: 16, width: 16, numInferenceSteps: 2 };
  const alone = await Promise.all([5, 6].map((seed) => pipe('a', { ...options, seed })));
  const each = await pipe(['a', 'a'], { ...options, generator: [new TorchGenerator(5), new TorchGenerator(6)] });
  for (const [i, image] of each.images.entries()) {
    const difference = image.data.map((value, at) => Math.abs(value - alone[i]!.images[0]!.data[at]!));
    expect(Math.max(...difference)).toBeLessThanOrEqual(1);
  }
  const generator = new TorchGenerator(5);
  const first = await pipe('a', { ...options, generator });
  const second = await pipe('a', { ...options, generator });
  expect(first.images[0]!.data).toEqual(alone[0]!.images[0]!.data);
  expect(second.images[0]!.data).not.toEqual(first.images[0]!.data);
});
