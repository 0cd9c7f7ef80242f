import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { StateDictError } from '../../src/errors.js';
import { type SafetensorsEntry, writeSafetensors } from '../../src/loaders/safetensors/writer.js';
import {
  AutoencoderKL,
  CLIPTextModel,
  CLIPTextModelWithProjection,
  type Model,
  UNet2DConditionModel,
} from '../../src/models/index.js';
import { setWarningHandler } from '../../src/utils/logging.js';
import { type PipelineConfigs, type WeightDtype, weightEntries } from '../support/checkpoint.js';
import { relativeL2 } from '../support/compare.js';
import { generatedTensor, loadGenerated } from '../support/generated_weights.js';
import { loadSafetensors } from '../support/safetensors.js';

const { metadata } = loadSafetensors('test/fixtures/pipelines.safetensors');
const { sd15, sd21 } = JSON.parse(metadata.kinds!) as Record<string, PipelineConfigs>;

const CLASSES = { unet: UNet2DConditionModel, vae: AutoencoderKL, text_encoder: CLIPTextModel };
const ATTENTION_1X1 = /attentions\.0\.(query|key|value|proj_attn)\.weight$/;
const FIRST_NAMES: Record<string, string> = { to_q: 'query', to_k: 'key', to_v: 'value', 'to_out.0': 'proj_attn' };

const firstVaeName = (name: string) =>
  name.replace(
    /(attentions\.0\.)(to_q|to_k|to_v|to_out\.0)\./,
    (_, at: string, key: string) => `${at}${FIRST_NAMES[key]}.`,
  );

/** Numbers of every parameter by name. */
async function values(model: Model): Promise<Record<string, Float32Array>> {
  const entries = model.parameters.map(async (parameter) => [parameter.path, await parameter.data()] as const);
  return Object.fromEntries(await Promise.all(entries));
}

describe('checkpoints as people have them', () => {
  let dir: string;

  beforeAll(async () => {
    await pickBackend('wasm');
  });

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  });

  afterEach(async () => {
    expect(tf.memory().numTensors).toBe(0);
    await rm(dir, { recursive: true });
  });

  /** Writes one file of weights and config.json, loads them and gives every parameter's numbers. */
  async function load(
    component: keyof typeof CLASSES,
    config: Record<string, unknown>,
    entries: SafetensorsEntry[],
    options: { file?: string; variant?: string } = {},
  ): Promise<Record<string, Float32Array>> {
    const modelClass = CLASSES[component];
    await writeFile(join(dir, 'config.json'), JSON.stringify(config));
    await writeSafetensors(join(dir, options.file ?? `${modelClass.weightsName}.safetensors`), entries);
    const model = await modelClass.fromPretrained(dir, { variant: options.variant });
    const loaded = await values(model);
    model.dispose();
    return loaded;
  }

  async function expected(
    component: keyof typeof CLASSES,
    config: Record<string, unknown>,
  ): Promise<Record<string, Float32Array>> {
    const model = CLASSES[component].fromConfig(config);
    await loadGenerated(model);
    const all = await values(model);
    model.dispose();
    return all;
  }

  test("the VAE's first attention names, as matrices and as 1x1 convolutions", async () => {
    const wanted = await expected('vae', sd15!.vae);
    const renamed = weightEntries('vae', sd15!.vae).map((entry) => ({ ...entry, name: firstVaeName(entry.name) }));
    expect(renamed.filter(({ name }) => ATTENTION_1X1.test(name))).toHaveLength(8);
    expect(await load('vae', sd15!.vae, renamed)).toEqual(wanted);
    const convolutions = renamed.map((entry) =>
      ATTENTION_1X1.test(entry.name) ? { ...entry, shape: [...entry.shape, 1, 1] } : entry,
    );
    expect(await load('vae', sd15!.vae, convolutions)).toEqual(wanted);
  });

  test('a text encoder without the text_model prefix', async () => {
    const entries = weightEntries('text_encoder', sd15!.text_encoder!);
    const bare = entries.map((entry) => ({ ...entry, name: entry.name.replace('text_model.', '') }));
    expect(bare.some(({ name }) => name.startsWith('text_model.'))).toBe(false);
    const wanted = await expected('text_encoder', sd15!.text_encoder!);
    expect(await load('text_encoder', sd15!.text_encoder!, bare)).toEqual(wanted);
  });

  test.each(['text_model.embeddings.position_ids', 'embeddings.position_ids', 'text_projection.weight', 'logit_scale'])(
    'a text encoder with %s, which is no weight of it',
    async (name) => {
      const buffer: SafetensorsEntry = { name, dtype: 'I64', shape: [1, 77], data: () => new Uint8Array(77 * 8) };
      const entries = [...weightEntries('text_encoder', sd15!.text_encoder!), buffer];
      const wanted = await expected('text_encoder', sd15!.text_encoder!);
      expect(await load('text_encoder', sd15!.text_encoder!, entries)).toEqual(wanted);
    },
  );

  test('a whole CLIP model with its vision half, for the text encoder with projection', async () => {
    const config = { ...sd15!.text_encoder!, projection_dim: 10 };
    const projection = generatedTensor('text_projection.weight', [10, 16]);
    const extra = [
      {
        name: 'text_projection.weight',
        dtype: 'F32' as const,
        shape: [10, 16],
        data: () => new Uint8Array(projection.buffer),
      },
      { name: 'visual_projection.weight', dtype: 'F32' as const, shape: [10, 4], data: () => new Uint8Array(160) },
      {
        name: 'vision_model.embeddings.class_embedding',
        dtype: 'F32' as const,
        shape: [4],
        data: () => new Uint8Array(16),
      },
    ];
    await writeFile(join(dir, 'config.json'), JSON.stringify({ text_config: config, vision_config: {} }));
    await writeSafetensors(join(dir, 'model.safetensors'), [...weightEntries('text_encoder', config), ...extra]);
    const model = await CLIPTextModelWithProjection.fromPretrained(dir);
    expect((await values(model))['text_projection.weight']).toEqual(projection);
    model.dispose();
  });

  test.each(['sd15: convolutions', 'sd21: linear'])(
    'proj_in and proj_out as matrices and 1x1 convolutions, %s',
    async (kind) => {
      const { unet } = kind.startsWith('sd15') ? sd15! : sd21!;
      const wanted = await expected('unet', unet);
      const isProjection = (name: string) => /proj_(in|out)\.weight$/.test(name);
      const entries = weightEntries('unet', unet);
      const other = entries.map((entry) => {
        const shape = entry.shape.length === 4 ? entry.shape.slice(0, 2) : [...entry.shape, 1, 1];
        return isProjection(entry.name) ? { ...entry, shape } : entry;
      });
      expect(await load('unet', unet, entries)).toEqual(wanted);
      expect(await load('unet', unet, other)).toEqual(wanted);
    },
  );

  test.each<[WeightDtype, number]>([
    ['F16', 2 ** -11],
    ['BF16', 2 ** -8],
  ])('%s files under the names of a variant', async (dtype, rounding) => {
    const wanted = await expected('unet', sd21!.unet);
    const file = 'diffusion_pytorch_model.fp16.safetensors';
    const loaded = await load('unet', sd21!.unet, weightEntries('unet', sd21!.unet, dtype), { file, variant: 'fp16' });
    expect(Object.keys(loaded)).toEqual(Object.keys(wanted));
    for (const [name, numbers] of Object.entries(loaded)) {
      const error = relativeL2(numbers, wanted[name]!);
      expect(error).toBeLessThan(rounding);
      expect(error).toBeGreaterThan(0);
    }
  });

  test('a variant that is asked for wins over the plain file, and a plain file serves where there is none', async () => {
    const { unet } = sd15!;
    const zeros = weightEntries('unet', unet).map((entry) => ({
      ...entry,
      data: () => new Uint8Array(4 * entry.shape.reduce((a, b) => a * b, 1)),
    }));
    await writeSafetensors(join(dir, 'diffusion_pytorch_model.safetensors'), zeros);
    const file = 'diffusion_pytorch_model.fp16.safetensors';
    const loaded = await load('unet', unet, weightEntries('unet', unet), { file, variant: 'fp16' });
    expect(loaded).toEqual(await expected('unet', unet));
    const warnings: string[] = [];
    setWarningHandler((message) => warnings.push(message));
    const plain = await UNet2DConditionModel.fromPretrained(dir, { variant: 'absent' });
    setWarningHandler(null);
    expect(warnings).toEqual([expect.stringContaining("no weights of variant 'absent'")]);
    expect(Object.values(await values(plain)).every((numbers) => numbers.every((x) => x === 0))).toBe(true);
    plain.dispose();
  });

  test.each([undefined, 'fp16'])('shards with an index, variant %p', async (variant) => {
    const { unet } = sd15!;
    const entries = weightEntries('unet', unet);
    const infix = variant ? `.${variant}` : '';
    const name = (i: number) => `diffusion_pytorch_model${infix}-0000${i}-of-00003.safetensors`;
    await writeFile(join(dir, 'config.json'), JSON.stringify(unet));
    const weightMap: Record<string, string> = {};
    for (let shard = 0; shard < 3; shard++) {
      const part = entries.filter((_, i) => i % 3 === shard);
      await writeSafetensors(join(dir, name(shard + 1)), part);
      for (const entry of part) {
        weightMap[entry.name] = name(shard + 1);
      }
    }
    const index = `diffusion_pytorch_model.safetensors.index${infix}.json`;
    await writeFile(join(dir, index), JSON.stringify({ metadata: { total_size: 0 }, weight_map: weightMap }));
    const model = await UNet2DConditionModel.fromPretrained(dir, { variant });
    expect(await values(model)).toEqual(await expected('unet', unet));
    model.dispose();
  });

  test('one error lists every tensor that is missing, of another shape or left over, and nothing is loaded', async () => {
    const entries = weightEntries('unet', sd15!.unet);
    const damaged = entries
      .filter(({ name }) => name !== 'conv_in.weight' && name !== 'mid_block.resnets.0.norm1.bias')
      .map((entry) => {
        if (entry.name === 'conv_out.weight') return { ...entry, shape: [entry.shape[1]!, entry.shape[0]!, 3, 3] };
        if (entry.name === 'time_embedding.linear_1.bias') return { ...entry, name: 'time_embedding.linear_1.offset' };
        return entry;
      });
    const error = await load('unet', sd15!.unet, damaged).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(StateDictError);
    for (const listed of [
      'conv_in.weight [8,4,3,3]',
      'mid_block.resnets.0.norm1.bias [16]',
      'time_embedding.linear_1.bias [32]',
      'conv_out.weight: expected [4,8,3,3], got [8,4,3,3]',
      'time_embedding.linear_1.offset',
    ]) {
      expect((error as Error).message).toContain(listed);
    }
  });
});
