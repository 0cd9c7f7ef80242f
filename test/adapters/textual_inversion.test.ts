import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError, StateDictError } from '../../src/errors.js';
import { PARAMETERS_KEY } from '../../src/images/index.js';
import { applyRedrawing, loadRedrawingAdapters, redraw, StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { comparePipeline, type PipelineCase } from '../support/compare_pipeline.js';
import { loadSafetensors } from '../support/safetensors.js';
import { type DescribedFile, writeDescribed } from './lora_file.js';

type EmbeddingCase = PipelineCase & { files: { file: DescribedFile; token: string | null }[] };

const FIXTURE = 'test/fixtures/textual_inversion.safetensors';
const KIND = (JSON.parse(loadSafetensors(FIXTURE).metadata.kinds!) as { sd: PipelineConfigs }).sd;
const CALL = { numInferenceSteps: 1, seed: 3, height: 16, width: 16 } as const;
const tensors = (shapes: Record<string, number[]>): DescribedFile => ({ tensors: shapes, values: {} });

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(join(dir, 'model'), KIND);
});
afterAll(() => rm(dir, { recursive: true }));

async function write(name: string, file: DescribedFile): Promise<string> {
  const path = join(dir, `${name}.safetensors`);
  await writeDescribed(path, file);
  return path;
}

const load = () => StableDiffusionPipeline.fromPretrained(join(dir, 'model'), { backend: 'wasm' });

comparePipeline(FIXTURE, StableDiffusionPipeline, async (pipe: StableDiffusionPipeline, reference) => {
  for (const [i, { file, token }] of (reference as EmbeddingCase).files.entries()) {
    await pipe.loadTextualInversion(await write(String(i), file), token === null ? {} : { token });
  }
  return async () => pipe.unloadTextualInversion();
});

test('the word is the one in the file, or else the name of the file; unloaded it is text again', async () => {
  const pipe = await load();
  const { numTensors, numBytes } = tf.memory();
  const plain = pipe.tokenizer.encode('a my-style <cat>');
  for (let i = 0; i < 50; i++) {
    expect(await pipe.loadTextualInversion(await write('my-style', tensors({ emb_params: [2, 16] })))).toBe('my-style');
    expect(await pipe.loadTextualInversion(await write('other', tensors({ '<cat>': [16] })))).toBe('<cat>');
    expect(pipe.tokenizer.encode('a MY-STYLE <cat>').slice(-4)).toEqual([658, 659, 660, 657]);
    pipe.unloadTextualInversion('my-style');
    expect(pipe.tokenizer.encode('<cat>')).toEqual([656, 660, 657]);
    pipe.unloadTextualInversion();
    expect(tf.memory()).toMatchObject({ numTensors, numBytes });
  }
  expect(pipe.tokenizer.encode('a my-style <cat>')).toEqual(plain);
  await pipe.loadTextualInversion(join(dir, 'other.safetensors'), { token: 'MyCat' });
  expect(pipe.tokenizer.encode('mycat MYCAT')).toEqual([656, 658, 658, 657]);
  pipe.dispose();
  expect(tf.memory().numTensors).toBe(0);
});

test('files that cannot be used and words that are taken are refused', async () => {
  const pipe = await load();
  const { numTensors } = tf.memory();
  const wide = await write('wide', tensors({ emb_params: [2, 768] }));
  await expect(pipe.loadTextualInversion(wide)).rejects.toThrow(/for another model: its vectors have 768 numbers.*16/);
  const xl = await write('xl', tensors({ clip_l: [2, 16], clip_g: [2, 1280] }));
  await expect(pipe.loadTextualInversion(xl)).rejects.toThrow(StateDictError);
  const many = await write('many', tensors({ a: [16], b: [16] }));
  await expect(pipe.loadTextualInversion(many)).rejects.toThrow(/no textual inversion: it expects one tensor/);
  const cube = await write('cube', tensors({ a: [2, 2, 16] }));
  await expect(pipe.loadTextualInversion(cube)).rejects.toThrow(/expects vectors \[count, size\]/);
  const good = await write('good', tensors({ emb_params: [2, 16] }));
  await expect(pipe.loadTextualInversion(good, { token: '<|endoftext|>' })).rejects.toThrow(InvalidArgumentError);
  await expect(pipe.loadTextualInversion(good, { token: ' ' })).rejects.toThrow(/token expects a word/);
  await pipe.loadTextualInversion(good);
  await expect(pipe.loadTextualInversion(good)).rejects.toThrow(/a word that is no token yet/);
  expect(() => pipe.unloadTextualInversion('none')).toThrow(/words that are loaded \(good\)/);
  pipe.unloadTextualInversion();
  expect(tf.memory().numTensors).toBe(numTensors);
  pipe.dispose();
});

test('a picture is drawn again with the file that its metadata names, and no other', async () => {
  const path = await write('style', tensors({ emb_params: [2, 16] }));
  const pipe = await load();
  await pipe.loadTextualInversion(path);
  await pipe.enableModelCpuOffload();
  const prompt = '(a style:1.2) circle';
  const { images } = await pipe(prompt, { ...CALL, promptSyntax: 'a1111' });
  pipe.dispose();
  const redrawing = redraw(images[0]!.metadata[PARAMETERS_KEY]!);
  expect(redrawing.embeddings).toMatchObject([{ token: 'style', file: { name: 'style.safetensors' } }]);
  const again = await load();
  const other = await write('other', tensors({ '<cat>': [16] }));
  await expect(loadRedrawingAdapters(again, redrawing, {})).rejects.toThrow(/with the textual inversion files 'style/);
  await expect(loadRedrawingAdapters(again, redrawing, { embeddings: [other] })).rejects.toThrow(/got '.*other/);
  await loadRedrawingAdapters(again, redrawing, { embeddings: [path] });
  applyRedrawing(again, redrawing);
  const { images: drawn } = await again(redrawing.prompt, redrawing.options);
  expect(drawn[0]!.data).toEqual(images[0]!.data);
  again.dispose();
});
