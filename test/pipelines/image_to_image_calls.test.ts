import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { AbortedError, InvalidArgumentError } from '../../src/errors.js';
import { GeneratedImage } from '../../src/images/index.js';
import {
  type ImageInput,
  type StableDiffusionImg2ImgOptions,
  StableDiffusionImg2ImgPipeline,
  StableDiffusionPipeline,
} from '../../src/pipelines/index.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { loadSafetensors } from '../support/safetensors.js';

const { sd15 } = JSON.parse(loadSafetensors('test/fixtures/pipelines.safetensors').metadata.kinds!) as Record<
  string,
  PipelineConfigs
>;
const image = { width: 24, height: 16, data: Uint8Array.from({ length: 24 * 16 * 3 }, (_, i) => (i * 37) % 256) };
const SMALL = { image, numInferenceSteps: 5, seed: 3 };

let dir: string;
let pipe: StableDiffusionImg2ImgPipeline;
let tensors: number;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(dir, sd15!);
  pipe = await StableDiffusionImg2ImgPipeline.fromPretrained(dir, { backend: 'wasm' });
});

afterAll(async () => {
  pipe.dispose();
  expect(tf.memory().numTensors).toBe(0);
  await rm(dir, { recursive: true });
});

beforeEach(() => {
  tensors = tf.memory().numTensors;
});

afterEach(() => {
  expect(tf.memory().numTensors).toBe(tensors);
});

async function draw(options: Partial<StableDiffusionImg2ImgOptions> = {}): Promise<Uint8Array> {
  const { images } = await pipe('a red circle', { ...SMALL, ...options, outputType: 'image' });
  return images[0]!.data;
}

describe('pictures drawn from a picture', () => {
  test('have its size, and say the share of the steps that was taken', async () => {
    const { images, timings } = await pipe('a red circle', SMALL);
    expect([images[0]!.width, images[0]!.height]).toEqual([24, 16]);
    // four of five steps, of which PNDM takes one twice
    expect(timings.steps).toHaveLength(5);
    expect(images[0]!.metadata.parameters).toMatch(/Steps: 5, .*Size: 24x16, .*Denoising strength: 0.8/);
  });

  test('progress counts the steps that are taken', async () => {
    const seen: [number, number][] = [];
    await draw({ strength: 0.5, onProgress: ({ step, total }) => seen.push([step, total]) });
    // the last three of PNDM's six timesteps: as many as int(5 * 0.5) leaves of five are left out
    expect(seen.map(String)).toEqual(['1,3', '2,3', '3,3']);
  });

  test('are the same from a PNG, and while weights lie in files', async () => {
    const expected = await draw();
    const png = await new GeneratedImage(24, 16, image.data).toBuffer('png');
    expect(await draw({ image: png })).toEqual(expected);
    await pipe.enableSequentialCpuOffload();
    expect(tf.memory().numTensors).toBe(0);
    expect(await draw()).toEqual(expected);
    expect(tf.memory().numTensors).toBe(0);
    await pipe.disableCpuOffload();
  });

  test('nearer to it for less strength', async () => {
    const difference = (drawn: Uint8Array, other: Uint8Array) =>
      drawn.reduce((sum, value, i) => sum + Math.abs(value - other[i]!), 0);
    const reference = await draw({ strength: 0.2 });
    const [near, far] = [await draw({ strength: 0.4 }), await draw({ strength: 1 })];
    expect(difference(near, reference)).toBeLessThan(difference(far, reference));
  });

  test('come from components of another pipeline, too', async () => {
    const other = new StableDiffusionImg2ImgPipeline(new StableDiffusionPipeline(pipe.components).components);
    expect((await other('a red circle', SMALL)).images[0]!.data).toEqual(await draw());
  });

  test('a call that is stopped leaves nothing', async () => {
    const controller = new AbortController();
    const stopped = draw({ signal: controller.signal, callbackOnStepEnd: () => controller.abort() });
    await expect(stopped).rejects.toThrow(AbortedError);
  });
});

describe('calls that cannot be made', () => {
  const wrong: [string, () => Record<string, unknown>][] = [
    ['no picture', () => ({ image: undefined })],
    ['null as picture', () => ({ image: null })],
    ['a number as picture', () => ({ image: 5 })],
    ['a path of no file', () => ({ image: '/no/such/picture.png' })],
    ['an empty list', () => ({ image: [] })],
    ['pixels of another number', () => ({ image: { ...image, width: 25 } })],
    ['a picture smaller than a latent', () => ({ image: { width: 1, height: 1, data: new Uint8Array(3) } })],
    ['two pictures for one', () => ({ image: [image, image] })],
    ['two pictures for three', () => ({ image: [image, image], numImagesPerPrompt: 3 })],
    ['pictures and latents', () => ({ image: [image, tf.zeros([8, 12, 4])] })],
    ['a tensor of two channels', () => ({ image: tf.zeros([16, 24, 2]) })],
    ['a strength of 0', () => ({ strength: 0 })],
    ['a strength that leaves no step', () => ({ strength: 0.19 })],
    ['a strength above 1', () => ({ strength: 1.01 })],
    ['a strength as text', () => ({ strength: '0.5' })],
    ['a height', () => ({ height: 16 })],
    ['latents', () => ({ latents: tf.zeros([1, 8, 12, 4]) })],
  ];

  test.each(wrong)('%s: an InvalidArgumentError, and nothing is left behind', async (_, make) => {
    const options = make();
    const call = { ...SMALL, ...options } as StableDiffusionImg2ImgOptions;
    const error = await pipe('a', call).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect((error as Error).message).toMatch(/^\[\w+(\.\w+)?\] .{20,}/);
    tf.dispose([options.image, options.latents].flat().filter((value) => value instanceof tf.Tensor));
  });

  test('no options at all', async () => {
    const call = pipe as unknown as (prompt: string) => Promise<unknown>;
    await expect(call('a')).rejects.toThrow(/image expects a picture/);
  });

  test('pictures of several sizes take that of the first, as in diffusers', async () => {
    const wide: ImageInput = { width: 48, height: 16, data: new Uint8Array(48 * 16 * 3) };
    const { images } = await pipe(['a', 'b'], { ...SMALL, image: [image, wide] });
    expect(images.map(({ width, height }) => [width, height])).toEqual([
      [24, 16],
      [24, 16],
    ]);
  });
});
