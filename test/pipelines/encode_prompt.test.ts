import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../src/errors.js';
import { StableDiffusionPipeline, TINY_SHAPES } from '../../src/index.js';

const SMALL = { seed: 1, numInferenceSteps: 2, height: 32, width: 32 };
let pipe: StableDiffusionPipeline;
let tensors: number;

beforeAll(async () => {
  pipe = await StableDiffusionPipeline.fromPretrained(TINY_SHAPES, { backend: 'wasm' });
});
afterAll(() => pipe.dispose());
beforeEach(() => {
  tensors = tf.memory().numTensors;
});
afterEach(() => {
  expect(tf.memory().numTensors).toBe(tensors);
});

test('what encodePrompt gives draws the pictures that the texts draw', async () => {
  const [prompt, negativePrompt] = [['a red circle', 'a blue square'], 'green'];
  const embeds = await pipe.encodePrompt(prompt, { negativePrompt });
  expect(embeds.promptEmbeds.shape).toEqual([2, 77, 128]);
  expect(embeds.negativePromptEmbeds!.shape).toEqual([2, 77, 128]);
  const fromEmbeds = await pipe(undefined, { ...SMALL, ...embeds });
  const fromTexts = await pipe(prompt, { ...SMALL, negativePrompt });
  expect(fromEmbeds.images.map(({ data }) => data)).toEqual(fromTexts.images.map(({ data }) => data));
  tf.dispose([embeds.promptEmbeds, embeds.negativePromptEmbeds!]);
});

test('without guidance there is one tensor; each prompt counts numImagesPerPrompt times', async () => {
  const options = { doClassifierFreeGuidance: false, numImagesPerPrompt: 3, promptSyntax: 'a1111' as const };
  const { promptEmbeds, negativePromptEmbeds } = await pipe.encodePrompt(['a', '(b:1.3)'], options);
  expect(negativePromptEmbeds).toBeUndefined();
  expect(promptEmbeds.shape).toEqual([6, 77, 128]);
  const rows = (await promptEmbeds.array()).map((row) => JSON.stringify(row));
  expect(rows.map((row) => rows.indexOf(row))).toEqual([0, 0, 0, 3, 3, 3]);
  promptEmbeds.dispose();
});

test.each<[string, unknown, unknown]>([
  ['a number', 5, {}],
  ['nothing', undefined, {}],
  ['an option that there is not', 'a', { negative: 'b' }],
  ['embeddings, which are what it makes', 'a', { promptEmbeds: null, negativePromptEmbeds: 1 }],
  ['a flag as text', 'a', { doClassifierFreeGuidance: 'yes' }],
  ['options that are a text', 'a', 'b'],
])('%s is refused', async (_, prompt, options) => {
  await expect(pipe.encodePrompt(prompt as string, options as object)).rejects.toThrow(InvalidArgumentError);
});

test('works while the text encoder lies in its files', async () => {
  const resident = await pipe.encodePrompt('a red circle', { doClassifierFreeGuidance: false });
  await pipe.enableModelCpuOffload();
  const read = await pipe.encodePrompt('a red circle', { doClassifierFreeGuidance: false });
  expect(read.promptEmbeds.dataSync()).toEqual(resident.promptEmbeds.dataSync());
  await pipe.disableCpuOffload();
  tf.dispose([resident.promptEmbeds, read.promptEmbeds]);
});
