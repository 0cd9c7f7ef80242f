import { cp, mkdtemp, open, readFile, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import {
  AbortedError,
  BackendError,
  CheckpointError,
  ConfigError,
  DiffusersError,
  DownloadError,
  InvalidArgumentError,
  StateDictError,
} from '../../src/errors.js';
import { type FromPretrainedOptions, StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { loadSafetensors } from '../support/safetensors.js';

type ErrorClass = new (...args: never[]) => DiffusersError;
type Json = Record<string, unknown>;

const { metadata } = loadSafetensors('test/fixtures/pipelines.safetensors');
const { sd15 } = JSON.parse(metadata.kinds!) as Record<string, PipelineConfigs>;
const UNET = 'unet/diffusion_pytorch_model.safetensors';
const VAE = 'vae/diffusion_pytorch_model.safetensors';

let source: string;
let dir: string;

beforeAll(async () => {
  source = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(source, sd15!);
});

afterAll(async () => {
  await rm(source, { recursive: true });
});

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await cp(source, dir, { recursive: true });
});

afterEach(async () => {
  expect(tf.memory().numTensors).toBe(0);
  await rm(dir, { recursive: true });
});

/** What loading fails with. */
async function failure(options: unknown = {}, path: unknown = dir): Promise<unknown> {
  try {
    const pipe = await StableDiffusionPipeline.fromPretrained(path as string, {
      backend: 'wasm',
      ...(options as FromPretrainedOptions),
    });
    pipe.dispose();
    return 'it loaded';
  } catch (error) {
    return error;
  }
}

async function edit(file: string, change: (json: Json) => Json): Promise<void> {
  const path = join(dir, file);
  await writeFile(path, JSON.stringify(change(JSON.parse(await readFile(path, 'utf8')))));
}

/** Replaces the header of a safetensors file. */
async function editHeader(file: string, change: (header: Record<string, Json>) => unknown): Promise<void> {
  const path = join(dir, file);
  const bytes = await readFile(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = Buffer.from(JSON.stringify(change(JSON.parse(bytes.toString('utf8', 8, 8 + length)))));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(header.length));
  await writeFile(path, Buffer.concat([prefix, header, bytes.subarray(8 + length)]));
}

function expectError(error: unknown, type: ErrorClass, ...mentions: string[]): void {
  expect(error).toBeInstanceOf(type);
  for (const mention of mentions) {
    expect((error as Error).message).toContain(mention);
  }
}

describe('configurations', () => {
  const cases: [file: string, name: string, change: Json, mentions: string[]][] = [
    [
      'model_index.json',
      'another pipeline',
      { _class_name: 'StableDiffusionXLPipeline', text_encoder_2: ['transformers', 'CLIPTextModelWithProjection'] },
      ['StableDiffusionXLPipeline', 'text_encoder_2', 'StableDiffusionPipeline'],
    ],
    ['model_index.json', 'a pipeline that is a number', { _class_name: 3 }, ['_class_name']],
    ['model_index.json', 'another UNet', { unet: ['diffusers', 'UNet3DConditionModel'] }, ['UNet2DConditionModel']],
    ['model_index.json', 'no VAE', { vae: [null, null] }, ['vae', 'AutoencoderKL']],
    ['model_index.json', 'a tokenizer that is a text', { tokenizer: 'CLIPTokenizer' }, ['tokenizer']],
    ['unet/config.json', 'channels as text', { block_out_channels: '8, 16' }, ['block_out_channels']],
    ['unet/config.json', 'fewer channels than blocks', { block_out_channels: [8] }, ['block_out_channels']],
    ['unet/config.json', 'more up blocks than down blocks', { up_block_types: ['UpBlock2D'] }, ['up_block_types']],
    ['unet/config.json', 'a block that is not known', { down_block_types: ['DownBlock2D', 'KDownBlock2D'] }, ['KDown']],
    ['unet/config.json', 'no blocks', { down_block_types: [], up_block_types: [] }, ['down_block_types']],
    ['unet/config.json', 'a middle that is not known', { mid_block_type: 'MidBlock' }, ['mid_block_type']],
    ['unet/config.json', 'channels of 0', { block_out_channels: [0, 16] }, ['block_out_channels']],
    ['unet/config.json', 'half a channel', { in_channels: 4.5 }, ['in_channels']],
    ['unet/config.json', 'groups that do not divide', { norm_num_groups: 3 }, ['norm_num_groups']],
    ['unet/config.json', 'heads of another length', { attention_head_dim: [1, 2, 3] }, ['attention_head_dim']],
    ['unet/config.json', 'more heads than channels', { attention_head_dim: 32 }, ['attention_head_dim']],
    ['unet/config.json', 'layers as text', { layers_per_block: 'two' }, ['layers_per_block']],
    ['unet/config.json', 'an activation that is not known', { act_fn: 'tanh' }, ['act_fn']],
    ['unet/config.json', 'a flag as text', { use_linear_projection: 'yes' }, ['use_linear_projection']],
    ['unet/config.json', 'class labels that are not known', { class_embed_type: 'x' }, ['class_embed_type']],
    ['unet/config.json', 'a projection without its size', { class_embed_type: 'projection' }, ['projection_class']],
    ['unet/config.json', 'added conditions without sizes', { addition_embed_type: 'text_time' }, ['projection_class']],
    ['unet/config.json', "Kandinsky's conditions", { addition_embed_type: 'image' }, ['addition_embed_type']],
    ['unet/config.json', 'what is not built here', { dual_cross_attention: true }, ['dual_cross_attention']],
    ['unet/config.json', 'lists of transformer layers alone', { transformer_layers_per_block: [[1], 1] }, ['reverse']],
    ['unet/config.json', 'text widths of another length', { cross_attention_dim: [16] }, ['cross_attention_dim']],
    [
      'vae/config.json',
      'another decoder',
      { up_block_types: ['UpDecoderBlock2D', 'AttnUpDecoderBlock2D'] },
      ['up_block'],
    ],
    ['vae/config.json', 'no list of channels', { block_out_channels: 8 }, ['block_out_channels']],
    ['vae/config.json', 'a factor as text', { scaling_factor: '0.18' }, ['scaling_factor']],
    ['text_encoder/config.json', 'heads that do not divide', { num_attention_heads: 3 }, ['num_attention_heads']],
    ['text_encoder/config.json', 'an activation that is not known', { hidden_act: 'relu' }, ['hidden_act']],
    ['text_encoder/config.json', 'a negative vocabulary', { vocab_size: -1 }, ['vocab_size']],
    ['scheduler/scheduler_config.json', 'a schedule that is not known', { beta_schedule: 'cubic' }, ['beta_schedule']],
    ['scheduler/scheduler_config.json', 'steps as text', { num_train_timesteps: 'many' }, ['num_train_timesteps']],
  ];

  test.each(cases)('%s with %s', async (file, _, change, mentions) => {
    await edit(file, (json) => ({ ...json, ...change }));
    const error = await failure();
    expectError(error, DiffusersError, ...mentions);
    expect(error).not.toBeInstanceOf(StateDictError);
  });

  test('a configuration that says something else than the weights', async () => {
    await edit('unet/config.json', (json) => ({ ...json, cross_attention_dim: 24 }));
    expectError(await failure(), StateDictError, 'attn2.to_k.weight: expected [8,24], got [8,16]');
  });

  test.each<[string, Json, string]>([
    ['a text encoder of another width', { cross_attention_dim: 24 }, 'cross_attention_dim is 24'],
    ['an inpainting UNet', { in_channels: 9 }, 'another task'],
  ])('components that do not go together: %s', async (_, change, mention) => {
    await writeCheckpoint(dir, { ...sd15!, unet: { ...sd15!.unet, ...change } });
    expectError(await failure(), ConfigError, mention);
  });

  test('a scheduler class that is not known', async () => {
    await edit('model_index.json', (json) => ({ ...json, scheduler: ['diffusers', 'SpecialScheduler'] }));
    await edit('scheduler/scheduler_config.json', (json) => ({ ...json, _class_name: 'SpecialScheduler' }));
    expectError(await failure(), InvalidArgumentError, 'SpecialScheduler', 'EulerDiscreteScheduler');
  });

  test("the scheduler's class is that of model_index.json", async () => {
    await edit('scheduler/scheduler_config.json', ({ _class_name, ...json }) => json);
    const pipe = await StableDiffusionPipeline.fromPretrained(dir, { backend: 'wasm' });
    expect(pipe.scheduler.className).toBe('PNDMScheduler');
    pipe.dispose();
  });

  test.each(['', '[]', 'null', '{"a": 1', '\u0000\u0001'])('files that hold %j', async (text) => {
    for (const file of ['unet/config.json', 'scheduler/scheduler_config.json', 'model_index.json']) {
      await writeFile(join(dir, file), text);
      expectError(await failure(), DiffusersError, file.split('/').at(-1)!);
    }
  });

  test.each([
    'model_index.json',
    'unet/config.json',
    'vae/config.json',
    'text_encoder/config.json',
    'scheduler/scheduler_config.json',
    'tokenizer/vocab.json',
    'tokenizer/merges.txt',
    UNET,
    VAE,
    'text_encoder/model.safetensors',
  ])('without %s', async (file) => {
    await unlink(join(dir, file));
    expectError(await failure(), DiffusersError, file.split('/').at(-1)!);
  });
});

describe('damaged weights', () => {
  const first = (header: Record<string, Json>) => Object.keys(header).find((key) => key !== '__metadata__')!;
  const inFirst = (change: Json) => (header: Record<string, Json>) => {
    const name = first(header);
    return { ...header, [name]: { ...header[name], ...change } };
  };
  const headers: [name: string, change: (header: Record<string, Json>) => unknown][] = [
    ['a header that is a list', () => []],
    ['a header without tensors', () => ({})],
    ['a type that is not known', inFirst({ dtype: 'F99' })],
    ['a type of another size', inFirst({ dtype: 'F64' })],
    ['no type', inFirst({ dtype: null })],
    ['a shape of another size', inFirst({ shape: [1, 2, 3] })],
    ['a negative shape', inFirst({ shape: [-1, -8] })],
    ['a shape that overflows', inFirst({ shape: [2 ** 40, 2 ** 40] })],
    ['a shape that is a text', inFirst({ shape: '8' })],
    ['offsets out of bounds', inFirst({ data_offsets: [2 ** 40, 2 ** 40 + 32] })],
    ['negative offsets', inFirst({ data_offsets: [-32, 0] })],
    ['offsets the wrong way round', inFirst({ data_offsets: [32, 0] })],
    ['no offsets', inFirst({ data_offsets: null })],
    [
      'tensors that overlap',
      (header) => {
        const [a, b] = Object.keys(header).filter((key) => key !== '__metadata__');
        return { ...header, [b!]: header[a!] };
      },
    ],
  ];

  test.each(headers)('%s', async (_, change) => {
    await editHeader(UNET, change);
    const error = await failure();
    expect(error instanceof CheckpointError || error instanceof StateDictError).toBe(true);
  });

  test('a type of the same size that is not for weights', async () => {
    await editHeader(UNET, inFirst({ dtype: 'I32' }));
    expectError(await failure(), StateDictError, 'expected F64, F32, F16, BF16, F8_E4M3, F8_E5M2, got I32');
  });

  test.each([0n, 2n ** 60n, 2n ** 63n, 2n ** 64n - 1n, 99_999_999n])('a header of %p bytes', async (length) => {
    const file = await open(join(dir, UNET), 'r+');
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(length);
    await file.write(prefix, 0, 8, 0);
    await file.close();
    expectError(await failure(), CheckpointError, 'diffusion_pytorch_model.safetensors');
  });

  test.each([0, 7, 8, 100, -1, -4000])('a file cut at %d', async (at) => {
    const bytes = await readFile(join(dir, VAE));
    await writeFile(join(dir, VAE), bytes.subarray(0, at < 0 ? bytes.length + at : at));
    expectError(await failure(), CheckpointError, VAE.split('/')[1]!);
  });

  test('bytes after the last tensor', async () => {
    const bytes = await readFile(join(dir, VAE));
    await writeFile(join(dir, VAE), Buffer.concat([bytes, Buffer.alloc(4)]));
    expectError(await failure(), CheckpointError, 'belong to no tensor');
  });

  test('a page of HTML in place of weights', async () => {
    await writeFile(join(dir, VAE), '<!DOCTYPE html><html><body>Access denied</body></html>');
    expectError(await failure(), CheckpointError, 'not a safetensors file');
  });
});

describe('loading', () => {
  test.each<[string, unknown, ErrorClass, string]>([
    ['a dtype that there is not', { dtype: 'int8' }, InvalidArgumentError, 'dtype'],
    ['an attention that there is not', { attention: 'fast' }, InvalidArgumentError, 'fast'],
    ['an attention that is a number', { attention: 3 }, InvalidArgumentError, 'attention'],
    ['a backend that there is not', { backend: 'cuda-on-a-toaster' }, BackendError, 'cuda-on-a-toaster'],
    ['a variant that is a number', { variant: 16 }, InvalidArgumentError, 'variant'],
    ['progress that is no function', { onProgress: 'yes' }, InvalidArgumentError, 'onProgress'],
    ['a signal that is none', { signal: 'stop' }, InvalidArgumentError, 'signal'],
    ['an object that says whether it was aborted', { signal: { aborted: false } }, InvalidArgumentError, 'AbortSignal'],
    ["Python's name", { torch_dtype: 'float16' }, InvalidArgumentError, "did you mean 'dtype'?"],
    ['a name that there is not', { safetychecker: null }, InvalidArgumentError, "did you mean 'safetyChecker'?"],
    ['no UNet', { unet: null }, InvalidArgumentError, 'cannot do without'],
    ['an object as UNet', { unet: {} }, InvalidArgumentError, 'an object of class UNet2DConditionModel'],
    ['a text as tokenizer', { tokenizer: 'clip' }, InvalidArgumentError, 'a tokenizer'],
    ['an object as tokenizer', { tokenizer: {} }, InvalidArgumentError, 'CLIPTokenizer'],
    ['a configuration as scheduler', { scheduler: { beta_start: 0.1 } }, InvalidArgumentError, 'a scheduler'],
    ['a safety checker, which nothing asks', { safetyChecker: {} }, InvalidArgumentError, 'safetyChecker expects null'],
  ])('refuses %s', async (_, options, type, mention) => {
    expectError(await failure(options), type, mention);
  });

  test.each([null, 5, '', {}])('refuses %p as a checkpoint', async (path) => {
    expectError(await failure({}, path), InvalidArgumentError, 'directory');
  });

  test('refuses options that are no object', async () => {
    await expect(StableDiffusionPipeline.fromPretrained(dir, 'fast' as never)).rejects.toThrow(InvalidArgumentError);
  });

  test('one component of a pipeline is told as one', async () => {
    for (const path of [join(dir, 'unet'), join(dir, 'unet/')]) {
      const advice = `load the pipeline with StableDiffusionPipeline.fromPretrained('${dir}')`;
      expectError(await failure({}, path), ConfigError, 'holds one component of a pipeline');
      expectError(await failure({}, path), ConfigError, 'model_index.json', advice);
    }
    await cp(join(dir, 'vae'), join(dir, 'alone', 'vae'), { recursive: true });
    expectError(await failure({}, join(dir, 'alone', 'vae')), ConfigError, 'needs a directory with model_index.json');
  });

  test('a path of two names that is no directory: that is said first', async () => {
    const error = await failure({ localFilesOnly: true, cacheDir: dir }, 'weights/not-there');
    expectError(error, DownloadError);
    expect((error as Error).message).toMatch(/^there is no directory 'weights\/not-there' on this machine; as a repo/);
  });

  test('a checkpoint of another task, by a component that only it has', async () => {
    await edit('model_index.json', (json) => ({ ...json, text_encoder_2: ['transformers', 'CLIPTextModel'] }));
    expectError(await failure(), ConfigError, "component 'text_encoder_2'", 'StableDiffusionPipeline has no use for');
  });

  test('components that the caller has: given back when loading fails, optional ones left out', async () => {
    const own = await StableDiffusionPipeline.fromPretrained(dir, { backend: 'wasm', safetyChecker: null });
    const { unet, vae } = own;
    const pipe = await StableDiffusionPipeline.fromPretrained(dir, { backend: 'wasm', unet, vae });
    expect([pipe.unet, pipe.vae]).toEqual([unet, vae]);
    expect(pipe.textEncoder).not.toBe(own.textEncoder);
    pipe.textEncoder.dispose();
    await unlink(join(dir, VAE));
    expectError(await failure({ unet }), CheckpointError);
    expect(unet.parameters.every((parameter) => parameter.isLoaded)).toBe(true);
    own.dispose();
  });

  test('a constructor refuses components that are missing, of other classes and unknown', async () => {
    const own = await StableDiffusionPipeline.fromPretrained(dir, { backend: 'wasm' });
    const parts = own.components;
    const make = (change: object) => () => new StableDiffusionPipeline({ ...parts, ...change });
    expect(make({})).not.toThrow();
    expect(make({ unet: undefined })).toThrow(/unet expects an object of class UNet2DConditionModel, got undefined/);
    expect(make({ scheduler: null })).toThrow(/scheduler expects a scheduler, got null/);
    expect(make({ vae: parts.unet })).toThrow(/vae expects an object of class AutoencoderKL/);
    expect(make({ textEncoders: [] })).toThrow(/did you mean 'textEncoder'/);
    expect(() => new StableDiffusionPipeline(undefined as never)).toThrow(InvalidArgumentError);
    own.dispose();
  });

  test('a directory that is not there', async () => {
    const error = await failure({}, join(dir, 'not', 'there', 'at', 'all'));
    expect(
      error instanceof DownloadError || error instanceof ConfigError || error instanceof InvalidArgumentError,
    ).toBe(true);
  });

  test('stops at a signal given before', async () => {
    expectError(await failure({ signal: AbortSignal.abort() }), AbortedError);
  });

  test.each(['text_encoder', 'unet', 'vae'])('stops at a signal that comes while the %s loads', async (component) => {
    const controller = new AbortController();
    let after = 0;
    const onProgress: FromPretrainedOptions['onProgress'] = (progress) => {
      if (controller.signal.aborted) {
        after++;
      }
      if (progress.stage === 'load' && progress.component === component && progress.loaded === 3) {
        controller.abort();
      }
    };
    expectError(await failure({ signal: controller.signal, onProgress }), AbortedError);
    expect(after).toBe(0);
  });

  test('what onProgress throws comes out as it is', async () => {
    const error = new Error('from the callback');
    const onProgress = (progress: { stage: string; component?: string }) => {
      if (progress.component === 'vae') {
        throw error;
      }
    };
    expect(await failure({ onProgress })).toBe(error);
  });

  test('gives progress for every tensor', async () => {
    const seen: Record<string, number[]> = {};
    const pipe = await StableDiffusionPipeline.fromPretrained(dir, {
      backend: 'wasm',
      onProgress: (progress) => {
        if (progress.stage === 'load') {
          (seen[progress.component] ??= []).push(progress.loaded / progress.total);
        }
      },
    });
    for (const [component, model] of Object.entries({
      unet: pipe.unet,
      vae: pipe.vae,
      text_encoder: pipe.textEncoder,
    })) {
      expect(seen[component]).toHaveLength(model.parameters.length);
      expect(seen[component]!.at(-1)).toBe(1);
    }
    pipe.dispose();
  });
});
