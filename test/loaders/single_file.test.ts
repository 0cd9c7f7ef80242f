import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { CheckpointError, ConfigError } from '../../src/errors.js';
import { openSafetensors } from '../../src/loaders/safetensors/index.js';
import { encodeFromFloat32 } from '../../src/loaders/safetensors/number_formats.js';
import { writeSafetensors } from '../../src/loaders/safetensors/writer.js';
import { CONFIGS } from '../../src/loaders/single_file/configs.js';
import { kindOf } from '../../src/loaders/single_file/kinds.js';
import { SingleFile } from '../../src/loaders/single_file/single_file.js';
import {
  AutoencoderKL,
  CLIPTextModel,
  CLIPTextModelWithProjection,
  ControlNetModel,
  UNet2DConditionModel,
} from '../../src/models/index.js';
import type { ConfigJson, Model } from '../../src/models/model.js';
import { StableDiffusionImg2ImgPipeline, StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { CLIPTokenizer } from '../../src/tokenizers/index.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { relativeL2 } from '../support/compare.js';
import { generatedTensor } from '../support/generated_weights.js';

interface Family {
  configs: Record<string, ConfigJson>;
  /** Tensors of the file: of which of diffusers' each is made. */
  file: Record<string, { shape: number[]; of: [folder: string, key: string][]; transposed?: true }>;
}

const FAMILIES: Record<string, Family> = JSON.parse(
  gunzipSync(await readFile('test/fixtures/single_files.json.gz')).toString(),
);
const CLASSES: Record<string, new (config: ConfigJson) => Model> = {
  unet: UNet2DConditionModel,
  vae: AutoencoderKL,
  text_encoder: CLIPTextModel,
  text_encoder_2: CLIPTextModelWithProjection,
  controlnet: ControlNetModel,
};
const SCHEDULER = { ...CONFIGS.v1.components.scheduler, _class_name: 'DDIMScheduler', skip_prk_steps: undefined };
const CALL = { seed: 3, numInferenceSteps: 2, height: 16, width: 16 } as const;

let dir: string;

beforeAll(async () => {
  await tf.setBackend('cpu');
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
});
afterAll(() => rm(dir, { recursive: true }));

type Storage = 'F32' | 'F16' | 'BF16' | 'F8_E4M3';

/** The nearest float8 of 4 bits of exponent and 3 of mantissa, of numbers within its normal range or rounded to it. */
function encodeE4M3(data: Float32Array): Uint8Array {
  return Uint8Array.from(data, (x) => {
    const size = Math.min(Math.abs(x), 448);
    const exponent = Math.max(Math.floor(Math.log2(size)), -6);
    const steps = Math.round(size / 2 ** (exponent - 3));
    const bits = exponent === -6 && steps < 8 ? steps : ((exponent + 7) << 3) + (steps - 8);
    return (x < 0 ? 0x80 : 0) | bits;
  });
}

const encode = (data: Float32Array, dtype: Storage) =>
  dtype === 'F8_E4M3' ? encodeE4M3(data) : encodeFromFloat32(data, dtype);

function turned(data: Float32Array, [rows, columns]: [number, number]): Float32Array {
  return Float32Array.from(data, (_, i) => data[(i % columns) * rows + Math.floor(i / columns)]!);
}

function numbersOf({ shape, of, transposed }: Family['file'][string], shapes: Map<string, number[]>): Float32Array {
  const parts = of.map(([folder, key]) => numbersAt(key, shapes.get(`${folder}.${key}`)!));
  const data = Float32Array.from(parts.flatMap((part) => Array.from(part)));
  const size = shape.reduce((a, b) => a * b, 1);
  return of.length === 0 ? new Float32Array(size) : transposed ? turned(data, shape as [number, number]) : data;
}

/** Shapes of all tensors of the family's components, by folder and diffusers' name. */
function shapesOf({ configs }: Family): Map<string, number[]> {
  const models = Object.entries(configs).filter(([folder]) => folder in CLASSES);
  return new Map(
    models.flatMap(([folder, config]) =>
      new CLASSES[folder]!(config).parameters.map(({ path, shape }) => [`${folder}.${path}`, shape] as const),
    ),
  );
}

const made = new Map<string, Float32Array>();

/** `generatedTensor`, made once for each name and shape. */
function numbersAt(key: string, shape: number[]): Float32Array {
  const id = `${key}[${shape}]`;
  const known = made.get(id) ?? generatedTensor(key, shape);
  made.set(id, known);
  return known;
}

/** Writes the family's single file. */
async function writeSingleFile(name: string, path: string, dtype: Storage = 'F32', metadata?: Record<string, string>) {
  const family = FAMILIES[name]!;
  const shapes = shapesOf(family);
  const entries = Object.entries(family.file).map(([key, tensor]) => ({
    ...{ name: key, dtype, shape: tensor.shape },
    data: () => encode(numbersOf(tensor, shapes), dtype),
  }));
  await writeSafetensors(path, entries, metadata);
}

/** Writes the same checkpoint in diffusers' layout. */
function writeDiffusers(name: string, path: string): Promise<void> {
  const configs = { ...FAMILIES[name]!.configs, scheduler: SCHEDULER, pad: '<|endoftext|>' };
  return writeCheckpoint(path, configs as unknown as PipelineConfigs);
}

describe('tensors of a single file under the names of diffusers', () => {
  const parts = Object.entries(FAMILIES).flatMap(([name, { configs }]) =>
    Object.keys(configs)
      .filter((folder) => folder in CLASSES)
      .map((folder) => [name, folder] as const),
  );

  test.each(parts)('%s: %s', async (name, folder) => {
    const path = join(dir, `${name}.safetensors`);
    await writeSingleFile(name, path);
    const model = new CLASSES[folder]!(FAMILIES[name]!.configs[folder]!);
    const file = await SingleFile.open(path);
    expect(file.kind).toBe(name);
    const dict = file.component(
      folder,
      model.parameters.map(({ path }) => path),
    );
    expect(dict.keys().sort()).toEqual(model.parameters.map(({ path }) => path).sort());
    for (const { path: key, shape } of model.parameters) {
      const bytes = await dict.read(key);
      expect(dict.info(key)!.shape.reduce((a, b) => a * b, 1)).toBe(shape.reduce((a, b) => a * b, 1));
      expect(new Float32Array(bytes.buffer)).toEqual(numbersAt(key, shape));
    }
    await dict.close();
  });
});

describe('the kind of a file', () => {
  test('of Stable Diffusion 2 that predicts noise', async () => {
    const path = join(dir, 'base.safetensors');
    await writeSingleFile('v2', path, 'F32', { 'modelspec.prediction_type': 'epsilon' });
    const base = await SingleFile.open(path);
    expect(base.kind).toBe('v2-base');
    expect(await base.config('scheduler')).toMatchObject({ _class_name: 'PNDMScheduler' });
    await base.close();
    const steps = {
      name: 'global_step',
      dtype: 'I64',
      shape: [],
      data: () => new Uint8Array(BigInt64Array.of(875000n).buffer),
    } as const;
    const conv = {
      name: 'model.diffusion_model.input_blocks.0.0.weight',
      dtype: 'F16',
      shape: [1, 4, 1, 1],
      data: () => new Uint8Array(8),
    } as const;
    const text = { ...conv, name: 'cond_stage_model.model.ln_final.bias', shape: [4] } as const;
    await writeSafetensors(path, [steps, conv, text]);
    const dict = await openSafetensors(path);
    expect(await kindOf(dict, {}, path)).toBe('v2-base');
    await dict.close();
  });

  test.each([
    [['lora_unet_x.lora_up.weight'], /is a LoRA; .*loadLoraWeights/],
    [['emb_params'], /is a textual inversion/],
    [['model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale'], /diffusion transformer/],
    [['a', 'b'], /is no checkpoint of Stable Diffusion 1, 2, XL.*2 tensors: a, b/],
  ])('that is none: %s', async (names, message) => {
    const path = join(dir, 'other.safetensors');
    await writeSafetensors(
      path,
      names.map((name) => ({ name, dtype: 'F16', shape: [1], data: () => new Uint8Array(2) })),
    );
    const error = await StableDiffusionPipeline.fromSingleFile(path).catch((caught: Error) => caught);
    expect(error).toBeInstanceOf(CheckpointError);
    expect((error as Error).message).toMatch(message);
  });
});

describe('pipelines from single files', () => {
  test.each(['v1', 'v2'])('%s draws the picture of the same weights in the layout of diffusers', async (name) => {
    const [layout, path] = [join(dir, `${name}-diffusers`), join(dir, `${name}.safetensors`)];
    await writeDiffusers(name, layout);
    await writeSingleFile(name, path);
    const draw = async (pipe: StableDiffusionPipeline) => {
      const { images } = await pipe('a red circle', { ...CALL, outputType: 'tensor' });
      const data = images.dataSync<'float32'>();
      images.dispose();
      return data;
    };
    const expected = await StableDiffusionPipeline.fromPretrained(layout, { backend: 'wasm' });
    const pipe = await StableDiffusionPipeline.fromSingleFile(path, { config: layout });
    expect(pipe.modelName).toBe(name);
    const picture = await draw(expected);
    expect(await draw(pipe)).toEqual(picture);
    await pipe.enableSequentialCpuOffload();
    expect(await draw(pipe)).toEqual(picture);
    await pipe.savePretrained(join(dir, 'saved'));
    const saved = await StableDiffusionPipeline.fromPretrained(join(dir, 'saved'));
    expect(await draw(saved)).toEqual(picture);
    for (const used of [expected, pipe, saved]) {
      used.dispose();
    }
    expect(tf.memory().numTensors).toBe(0);
  });

  test('of 16 and 8 bits', async () => {
    const layout = join(dir, 'bits');
    await writeDiffusers('v1', layout);
    const numbers = async (dtype: Storage) => {
      const path = join(dir, `${dtype}.safetensors`);
      await writeSingleFile('v1', path, dtype);
      const unet = await UNet2DConditionModel.fromSingleFile(path, { config: layout });
      const data = (await unet.parameters.find(({ path }) => path === 'conv_in.weight')!.data()).slice();
      unet.dispose();
      return data;
    };
    const exact = generatedTensor('conv_in.weight', [8, 4, 3, 3]);
    expect(relativeL2(await numbers('F16'), exact)).toBeLessThan(1e-3);
    expect(relativeL2(await numbers('BF16'), exact)).toBeLessThan(4e-3);
    const eight = await numbers('F8_E4M3');
    expect(relativeL2(eight, exact)).toBeLessThan(0.05);
    expect(relativeL2(eight, exact)).toBeGreaterThan(1e-3);
  });

  test('a VAE alone, in the original layout and in that of diffusers', async () => {
    const layout = join(dir, 'vae-layout');
    await writeDiffusers('v1', layout);
    const path = join(dir, 'vae.safetensors');
    await writeSingleFile('vae', path);
    const expected = await AutoencoderKL.fromPretrained(join(layout, 'vae'));
    for (const source of [path, join(layout, 'vae', 'diffusion_pytorch_model.safetensors')]) {
      const vae = await AutoencoderKL.fromSingleFile(source, { config: join(layout, 'vae') });
      for (const [i, parameter] of vae.parameters.entries()) {
        expect(await parameter.data()).toEqual(await expected.parameters[i]!.data());
      }
      vae.dispose();
    }
    expected.dispose();
  });

  test('files that do not fit say so in one sentence', async () => {
    const layout = join(dir, 'errors');
    await writeDiffusers('v1', layout);
    const xl = join(dir, 'xl-base.safetensors');
    await writeSingleFile('xl-base', xl);
    await expect(StableDiffusionPipeline.fromSingleFile(xl)).rejects.toThrow(/checkpoint of StableDiffusionXLPipeline/);
    const inpainting = join(dir, 'v1-inpainting.safetensors');
    await writeSingleFile('v1-inpainting', inpainting);
    await writeFile(join(layout, 'unet', 'config.json'), JSON.stringify(FAMILIES['v1-inpainting']!.configs.unet));
    const wrong = StableDiffusionImg2ImgPipeline.fromSingleFile(inpainting, { config: layout });
    await expect(wrong).rejects.toThrow(ConfigError);
    const short = join(dir, 'short.safetensors');
    await writeFile(short, await readFile(xl));
    await truncate(short, 200_000);
    await expect(StableDiffusionPipeline.fromSingleFile(short)).rejects.toThrow(CheckpointError);
    await writeFile(join(dir, 'model.ckpt'), 'x');
    await expect(StableDiffusionPipeline.fromSingleFile(join(dir, 'model.ckpt'))).rejects.toThrow(
      /Python pickle.*safetensors/,
    );
    await expect(StableDiffusionPipeline.fromSingleFile(layout)).rejects.toThrow(
      /path or address of a .safetensors file/,
    );
    await expect(StableDiffusionPipeline.fromSingleFile(join(dir, 'no.safetensors'))).rejects.toThrow(
      /there is no file/,
    );
    const vae = join(dir, 'vae.safetensors');
    await writeSingleFile('vae', vae);
    await expect(UNet2DConditionModel.fromSingleFile(vae)).rejects.toThrow(/kind vae, which has no unet/);
    const unetOnly = join(dir, 'unet.safetensors');
    const names = Object.entries(FAMILIES.v1!.file).filter(([key]) => key.startsWith('model.diffusion_model.'));
    await writeSafetensors(
      unetOnly,
      names.map(([name, { shape }]) => ({
        name,
        shape,
        dtype: 'F32',
        data: () => new Uint8Array(4 * shape.reduce((a, b) => a * b, 1)),
      })),
    );
    await writeFile(join(layout, 'unet', 'config.json'), JSON.stringify(FAMILIES.v1!.configs.unet));
    await expect(StableDiffusionPipeline.fromSingleFile(unetOnly, { config: layout })).rejects.toThrow(
      /has no text_encoder \(no keys 'cond_stage_model/,
    );
    expect(tf.memory().numTensors).toBe(0);
  });
});

test("CLIP's own vocabulary comes with the package", async () => {
  const tokenizer = await CLIPTokenizer.standard('!');
  expect(tokenizer.vocabSize).toBe(49408);
  expect(tokenizer.encode('a photo of an astronaut riding a horse on mars')).toEqual([
    49406, 320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496, 49407,
  ]);
  expect([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId]).toEqual([49406, 49407, 0]);
});

test.each(Object.entries(CONFIGS))('the built-in configurations of %s make models', (_, { components }) => {
  for (const [folder, config] of Object.entries(components)) {
    if (folder in CLASSES) {
      expect(new CLASSES[folder]!(config).parameters.length).toBeGreaterThan(90);
    }
  }
});
