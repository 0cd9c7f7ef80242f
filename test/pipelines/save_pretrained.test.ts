import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { DiffusersError, FileWriteError, InvalidArgumentError } from '../../src/errors.js';
import { openSafetensors } from '../../src/loaders/safetensors/index.js';
import { UNet2DConditionModel } from '../../src/models/index.js';
import { StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { type PipelineConfigs, type WeightDtype, writeCheckpoint } from '../support/checkpoint.js';
import { relativeL2 } from '../support/compare.js';
import { loadSafetensors } from '../support/safetensors.js';

const { metadata } = loadSafetensors('test/fixtures/pipelines.safetensors');
const { sd21 } = JSON.parse(metadata.kinds!) as Record<string, PipelineConfigs>;

let source: string;
let dir: string;
let pipe: StableDiffusionPipeline;

beforeAll(async () => {
  source = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(source, sd21!);
  pipe = await StableDiffusionPipeline.fromPretrained(source, { backend: 'wasm' });
});

afterAll(async () => {
  pipe.dispose();
  expect(tf.memory().numTensors).toBe(0);
  await rm(source, { recursive: true });
});

let tensors: number;
beforeEach(async () => {
  tensors = tf.memory().numTensors;
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
});

afterEach(async () => {
  expect(tf.memory().numTensors).toBe(tensors);
  await rm(dir, { recursive: true });
});

async function draw(drawer: StableDiffusionPipeline): Promise<Float32Array> {
  const { images } = await drawer('a red circle', {
    ...{ height: 16, width: 16, numInferenceSteps: 2, seed: 3 },
    outputType: 'tensor',
  });
  const numbers = images.dataSync() as Float32Array;
  images.dispose();
  return numbers;
}

async function files(folder: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true })).sort();
}

describe('savePretrained', () => {
  test.each<[WeightDtype, string | undefined, number]>([
    ['F32', undefined, 0],
    ['F16', 'fp16', 0.01],
    ['BF16', undefined, 0.1],
  ])('in %s, variant %p: what is loaded again draws the same', async (dtype, variant, tolerance) => {
    await pipe.savePretrained(dir, { dtype, variant });
    const infix = variant ? `.${variant}` : '';
    expect(await files(dir)).toEqual(
      [
        'model_index.json',
        'scheduler',
        'scheduler/scheduler_config.json',
        'text_encoder',
        'text_encoder/config.json',
        `text_encoder/model${infix}.safetensors`,
        'tokenizer',
        'tokenizer/merges.txt',
        'tokenizer/special_tokens_map.json',
        'tokenizer/tokenizer_config.json',
        'tokenizer/vocab.json',
        'unet',
        'unet/config.json',
        `unet/diffusion_pytorch_model${infix}.safetensors`,
        'vae',
        'vae/config.json',
        `vae/diffusion_pytorch_model${infix}.safetensors`,
      ].sort(),
    );
    const saved = await openSafetensors(join(dir, 'unet', `diffusion_pytorch_model${infix}.safetensors`));
    for (const { path, shape } of pipe.unet.parameters) {
      expect(saved.info(path)).toEqual({ dtype, shape });
    }
    expect(saved.keys()).toHaveLength(pipe.unet.parameters.length);
    expect(saved.metadata).toEqual({ format: 'pt' });
    await saved.close();

    const again = await StableDiffusionPipeline.fromPretrained(dir, { variant });
    expect(again.scheduler.config).toMatchObject({ prediction_type: 'v_prediction' });
    expect(again.tokenizer.padTokenId).toBe(pipe.tokenizer.padTokenId);
    expect(relativeL2(await draw(again), await draw(pipe))).toBeLessThanOrEqual(tolerance);
    again.dispose();
  });

  test("numbers that Python's transformers insists on as floats are written as such", async () => {
    const { textEncoder } = pipe;
    const config = { ...textEncoder.config, initializer_factor: 1, layer_norm_eps: 1e-5, eos_token_id: 2 };
    const { parameters } = textEncoder;
    const copy = Object.create(textEncoder, { config: { value: config }, parameters: { value: parameters } });
    await copy.savePretrained(dir);
    const text = await readFile(join(dir, 'config.json'), 'utf8');
    expect(text).toContain('"initializer_factor": 1.0,');
    expect(text).toContain('"eos_token_id": 2,');
    expect(JSON.parse(text)).toEqual(config);
  });

  test('a model that is offloaded to its files', async () => {
    const unet = await UNet2DConditionModel.fromPretrained(join(source, 'unet'));
    await unet.enableOffload();
    await unet.savePretrained(dir);
    unet.dispose();
    const [saved, original] = [join(dir), join(source, 'unet')].map(
      (folder) => loadSafetensors(join(folder, 'diffusion_pytorch_model.safetensors')).tensors,
    );
    expect(saved).toEqual(original);
  });

  test('a failure leaves what was there before, and no half file', async () => {
    await pipe.savePretrained(dir);
    const before = await files(dir);
    const weights = await readFile(join(dir, 'unet', 'diffusion_pytorch_model.safetensors'));
    const [parameter] = pipe.unet.parameters;
    const { data } = parameter!;
    parameter!.data = () => Promise.reject(new Error('no more power'));
    await expect(pipe.savePretrained(dir)).rejects.toThrow('no more power');
    parameter!.data = data;
    expect(await files(dir)).toEqual(before);
    expect(await readFile(join(dir, 'unet', 'diffusion_pytorch_model.safetensors'))).toEqual(weights);
  });

  test('a path that is a file, or below one, is refused', async () => {
    const file = join(dir, 'file');
    await writeFile(file, 'mine');
    await expect(pipe.savePretrained(file)).rejects.toThrow(FileWriteError);
    await expect(pipe.unet.savePretrained(join(file, 'unet'))).rejects.toThrow(FileWriteError);
    expect(await readFile(file, 'utf8')).toBe('mine');
  });

  test.each([
    ['a type that files do not have', { dtype: 'F8' }],
    ['a variant that would leave the directory', { variant: '../x' }],
  ])('%s is refused before anything is written', async (_, options) => {
    await expect(pipe.savePretrained(dir, options as never)).rejects.toThrow(InvalidArgumentError);
    await expect(pipe.unet.savePretrained(dir, options as never)).rejects.toThrow(InvalidArgumentError);
    expect(await files(dir)).toEqual([]);
  });

  test('a model without weights is refused before anything is written', async () => {
    const unet = UNet2DConditionModel.fromConfig(sd21!.unet);
    await expect(unet.savePretrained(dir)).rejects.toThrow(DiffusersError);
    expect(await files(dir)).toEqual([]);
  });
});
