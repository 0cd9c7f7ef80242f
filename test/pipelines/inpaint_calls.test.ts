import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../src/errors.js';
import { type RawImage, StableDiffusionInpaintPipeline } from '../../src/pipelines/index.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { loadSafetensors } from '../support/safetensors.js';

const { metadata } = loadSafetensors('test/fixtures/pipeline_inpaint.safetensors');
const kinds = JSON.parse(metadata.kinds!) as Record<string, PipelineConfigs>;
const image = { width: 24, height: 16, data: Uint8Array.from({ length: 24 * 16 * 3 }, (_, i) => (i * 37) % 256) };
const mask = (width: number, height: number, value = 255): RawImage => ({
  ...{ width, height },
  data: Uint8Array.from({ length: width * height }, (_, i) => (i % width < width / 2 ? value : 0)),
});
const CALL = { image, maskImage: mask(24, 16), height: 16, width: 24, numInferenceSteps: 2, seed: 3 };
let dir: string;
let pipe: StableDiffusionInpaintPipeline;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(dir, kinds['9 channels']!);
  pipe = await StableDiffusionInpaintPipeline.fromPretrained(dir, { backend: 'wasm' });
});

afterAll(async () => {
  pipe.dispose();
  expect(tf.memory().numTensors).toBe(0);
  await rm(dir, { recursive: true });
});

const latents = () => tf.zeros([1, 8, 12, 4]);
test.each<[string, () => object, RegExp]>([
  ['no mask', () => ({ maskImage: undefined }), /maskImage expects a picture, white where/],
  ['no picture', () => ({ image: undefined }), /image expects a picture/],
  ['a mask of another size', () => ({ maskImage: mask(16, 16) }), /maskImage expects .* 24 x 16 pixels, got.*16 x 16/],
  ['a mask as a path of no file', () => ({ maskImage: '/no/such.png' }), /picture file/],
  ['two masks for one picture', () => ({ maskImage: [mask(24, 16), mask(24, 16)] }), /maskImage expects a batch/],
  ['a size that is no multiple of 2', () => ({ height: 15 }), /height expects a positive multiple/],
  ['a black mask to crop by', () => ({ maskImage: mask(24, 16, 0), paddingMaskCrop: 4 }), /something to draw anew/],
  ['a tensor to crop', () => ({ paddingMaskCrop: 4, outputType: 'tensor' }), /'image' with paddingMaskCrop/],
  ['two pictures to crop', () => ({ paddingMaskCrop: 4, image: [image, image] }), /one picture and one mask/],
  ['latents of another size', () => ({ latents: tf.zeros([1, 8, 8, 4]) }), /latents expects a tensor \[1,8,12,4\]/],
  ['latents of a masked picture of another size', () => ({ maskedImageLatents: tf.zeros([1, 8, 8, 4]) }), /masked/],
  ['latents that nothing can be masked in', () => ({ image: latents() }), /maskedImageLatents expects/],
])('%s: one sentence, and nothing is left behind', async (_, make, message) => {
  const before = tf.memory().numTensors;
  const options = make();
  const error = await pipe('a', { ...CALL, ...options } as never).catch((e: unknown) => e);
  expect(error).toBeInstanceOf(InvalidArgumentError);
  expect((error as Error).message).toMatch(message);
  tf.dispose(Object.values(options).filter((value) => value instanceof tf.Tensor));
  expect(tf.memory().numTensors).toBe(before);
});

test('pictures are the same while weights lie in files, and of masks as tensors', async () => {
  const draw = async (options = {}) => (await pipe('a', { ...CALL, ...options })).images[0]!.data;
  const expected = await draw();
  await pipe.enableSequentialCpuOffload();
  expect(await draw()).toEqual(expected);
  expect(tf.memory().numTensors).toBe(0);
  await pipe.disableCpuOffload();
  const maskImage = tf.tidy(() => tf.div(tf.tensor3d(Float32Array.from(CALL.maskImage.data), [16, 24, 1]), 255));
  expect(await draw({ maskImage })).toEqual(expected);
  maskImage.dispose();
});
