import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import type { LoraWeight } from '../../src/adapters/index.js';
import { weightAt } from '../../src/adapters/lora/lora_weights.js';
import { describeBackends } from '../../src/backends/index.js';
import type { PhysicalType } from '../../src/backends/types.js';
import { CheckpointError, InvalidArgumentError, NotReproducibleError, StateDictError } from '../../src/errors.js';
import { PARAMETERS_KEY } from '../../src/images/index.js';
import { UNetNames } from '../../src/loaders/single_file/unet_names.js';
import { UNet2DConditionModel } from '../../src/models/index.js';
import { applyRedrawing, loadRedrawingAdapters, redraw, StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { relativeL2 } from '../support/compare.js';
import { loadSafetensors } from '../support/safetensors.js';
import { type DescribedFile, writeDescribed } from './lora_file.js';

const { metadata } = loadSafetensors('test/fixtures/lora.safetensors');
const FILES = new Map(
  (JSON.parse(metadata.cases!) as { name: string; files: Record<string, DescribedFile> }[]).map(({ name, files }) => [
    name,
    files.a!,
  ]),
);
const KIND = (JSON.parse(metadata.kinds!) as { sd: PipelineConfigs }).sd;
const CALL = { numInferenceSteps: 2, seed: 3, height: 16, width: 16 } as const;

let dir: string;
let kohya: string;
let peft: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(join(dir, 'model'), KIND);
  kohya = join(dir, 'kohya.safetensors');
  peft = join(dir, 'peft.safetensors');
  await writeDescribed(kohya, FILES.get('kohya with convolutions')!, 'F16');
  await writeDescribed(peft, FILES.get('PEFT')!);
});

afterAll(() => rm(dir, { recursive: true }));

const load = (options: { backend?: 'wasm' | 'onednn'; dtype?: PhysicalType } = {}) =>
  StableDiffusionPipeline.fromPretrained(join(dir, 'model'), { backend: 'wasm', ...options });

async function pixels(
  pipe: StableDiffusionPipeline,
  options: object = {},
  prompt = 'a red circle',
): Promise<Float32Array> {
  const { images } = await pipe(prompt, { ...CALL, ...options, outputType: 'tensor' as const });
  const data = images.dataSync<'float32'>();
  images.dispose();
  return data;
}

describe('LoRAs of a pipeline', () => {
  test('fifty loads and unloads leave the memory as it was', async () => {
    const pipe = await load();
    const { numTensors, numBytes } = tf.memory();
    for (let i = 0; i < 50; i++) {
      await pipe.loadLoraWeights(i % 2 ? kohya : peft);
      if (i % 10 === 0) {
        await pixels(pipe, { numInferenceSteps: 1 });
      }
      pipe.unloadLoraWeights();
      expect(tf.memory()).toMatchObject({ numTensors, numBytes });
    }
    await pipe.loadLoraWeights(kohya);
    await pixels(pipe, { numInferenceSteps: 1 });
    pipe.dispose();
    expect(tf.memory().numTensors).toBe(0);
  });

  test('names, weights and what is at work', async () => {
    const pipe = await load();
    await pipe.loadLoraWeights(kohya);
    await pipe.loadLoraWeights(peft);
    expect(pipe.getListAdapters()).toEqual(['default_0', 'default_1']);
    expect(pipe.getActiveAdapters()).toEqual(['default_1']);
    pipe.setAdapters(['default_0', 'default_1'], [0.5, { unet: 0.1, textEncoder: 2 }]);
    expect(pipe.loraRecords.map(({ weight, file }) => [file?.name, weight])).toEqual([
      ['kohya.safetensors', 0.5],
      ['peft.safetensors', { unet: 0.1, textEncoder: 2 }],
    ]);
    const set = (weights: unknown) => () => pipe.setAdapters('default_0', weights as LoraWeight);
    expect(set('much')).toThrow(/weight expects a number, or an object/);
    expect(set([1, 2])).toThrow(/weights expects one for each of 1 adapters/);
    expect(set({ unett: 1 })).toThrow(/did you mean 'unet'/);
    expect(set({ unet: { left: 1 } })).toThrow(/blocks expects 'down', 'mid' or 'up'/);
    expect(set({ unet: { down: { block_1: 1 } } })).toThrow(/blocks of this UNet that have attention/);
    expect(set({ unet: { up: [1, 2, 3] } })).toThrow(/2 numbers, one for each layer/);
    expect(set({ textEncoder: { down: 1 } })).toThrow(/weight of textEncoder expects a number/);
    expect(() => pipe.setAdapters('other')).toThrow(/there is no LoRA 'other'; loaded are default_0, default_1/);
    expect(pipe.getActiveAdapters()).toEqual(['default_0', 'default_1']);
    await expect(pipe.loadLoraWeights(peft, { adapterName: 'default_0' })).rejects.toThrow(/not loaded yet/);
    await expect(pixels(pipe, { crossAttentionKwargs: { scala: 1 } })).rejects.toThrow(/an object { scale: number }/);
    pipe.dispose();
  });

  test('a prompt in the syntax of the web UI names its own', async () => {
    const pipe = await load();
    await pipe.loadLoraWeights(kohya, { adapterName: 'k' });
    await pipe.loadLoraWeights(peft, { adapterName: 'p' });
    const plain = { promptSyntax: 'a1111' };
    pipe.setAdapters(['k', 'p'], [0.4, { unet: -0.7, textEncoder: 0.2 }]);
    const expected = await pixels(pipe, plain);
    pipe.setAdapters(['k'], [0.1]);
    const tagged = await pixels(pipe, plain, '<lora:k:0.4>a red circle<lora:p:0.2:-0.7>');
    expect(tagged).toEqual(expected);
    expect(pipe.loraRecords).toMatchObject([{ name: 'k', weight: 0.1 }]);
    const draw = (prompt: string) => pixels(pipe, plain, prompt);
    await expect(draw('a <lora:other:1>')).rejects.toThrow(/there is no LoRA 'other'; loaded are k, p/);
    await expect(draw('a <lora:k:much>')).rejects.toThrow(/one number, or one for the text encoder/);
    const batch = pipe(['a<lora:k>', 'b'], { ...CALL, promptSyntax: 'a1111' });
    await expect(batch).rejects.toThrow(/the same in all prompts/);
    pipe.dispose();
  });

  test('are saved when they are fused, and only then; unfuse takes them out', async () => {
    const pipe = await load();
    const before = await pixels(pipe);
    await pipe.loadLoraWeights(kohya);
    const changed = await pixels(pipe);
    const saved = async () => {
      await pipe.savePretrained(join(dir, 'saved'));
      const again = await StableDiffusionPipeline.fromPretrained(join(dir, 'saved'), { backend: 'wasm' });
      const data = await pixels(again);
      again.dispose();
      return data;
    };
    expect(await saved()).toEqual(before);
    pipe.fuseLora();
    expect(relativeL2(await pixels(pipe), changed)).toBeLessThan(1e-6);
    expect(relativeL2(await saved(), changed)).toBeLessThan(1e-6);
    pipe.unloadLoraWeights();
    await pipe.loadLoraWeights(peft);
    expect(relativeL2(await pixels(pipe), changed)).toBeGreaterThan(1e-2);
    pipe.unloadLoraWeights();
    await pipe.enableModelCpuOffload();
    expect(relativeL2(await pixels(pipe), changed)).toBeLessThan(1e-6);
    await pipe.unfuseLora();
    expect(await pixels(pipe)).toEqual(before);
    pipe.dispose();
    expect(tf.memory().numTensors).toBe(0);
  });

  test('work while models are offloaded, whole or block by block', async () => {
    const pipe = await load();
    await pipe.loadLoraWeights(kohya);
    const expected = await pixels(pipe);
    await pipe.enableModelCpuOffload();
    expect(await pixels(pipe)).toEqual(expected);
    await pipe.enableSequentialCpuOffload();
    expect(await pixels(pipe)).toEqual(expected);
    pipe.unloadLoraWeights();
    await pipe.loadLoraWeights(kohya);
    expect(await pixels(pipe)).toEqual(expected);
    pipe.dispose();
    expect(tf.memory().numTensors).toBe(0);
  });

  test.each(['classic', 'sliced', 'split-v1', 'doggettx', 'invokeai', 'sub-quadratic', 'memory-efficient', 'sdp'])(
    'change attention by %s',
    async (name) => {
      const pipe = await load();
      await pipe.loadLoraWeights(kohya);
      const expected = await pixels(pipe, { numInferenceSteps: 1 });
      pipe.setAttention(name);
      expect(relativeL2(await pixels(pipe, { numInferenceSteps: 1 }), expected)).toBeLessThan(1e-5);
      pipe.dispose();
    },
  );

  test('on native kernels with packed queries, keys and values, in 32 and 16 bits', async () => {
    if (!(await describeBackends()).some(({ name, available }) => name === 'onednn' && available)) {
      return;
    }
    const wasm = await load();
    await wasm.loadLoraWeights(kohya);
    const expected = await pixels(wasm);
    wasm.dispose();
    for (const [dtype, bound] of [
      ['float32', 1e-4],
      ['bfloat16', 0.1],
    ] as const) {
      const pipe = await load({ backend: 'onednn', dtype });
      const { numTensors } = tf.memory();
      const before = await pixels(pipe);
      await pipe.loadLoraWeights(kohya);
      expect(relativeL2(await pixels(pipe), expected)).toBeLessThan(bound);
      pipe.unloadLoraWeights();
      expect(await pixels(pipe)).toEqual(before);
      expect(tf.memory().numTensors).toBe(numTensors);
      pipe.dispose();
    }
  });
});

test('weights by block are those of the attention and of what is beside it (get_module_weight of diffusers)', () => {
  const unet = new UNet2DConditionModel(KIND.unet);
  const weight = weightAt(unet, { down: 0.3, mid: 2, up: { block_1: [0.5, -1] } });
  const found = [
    'conv_in',
    'down_blocks.0.attentions.0.proj_in',
    'down_blocks.0.resnets.0.conv1',
    'down_blocks.0.downsamplers.0.conv',
    'down_blocks.1.resnets.0.conv1',
    'mid_block.attentions.0.proj_in',
    'mid_block.resnets.1.conv1',
    'up_blocks.0.resnets.1.conv2',
    'up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q',
    'up_blocks.1.resnets.0.conv2',
    'up_blocks.1.resnets.1.conv2',
  ].map(weight);
  expect(found).toEqual([1, 0.3, 0.3, 0.3, 1, 2, 1, 1, -1, 0.5, -1]);
});

describe('metadata of a picture drawn with LoRAs', () => {
  test('names the files by their content, and draws it again with them alone', async () => {
    const pipe = await load();
    await pipe.loadLoraWeights(kohya, { adapterName: 'k' });
    await pipe.loadLoraWeights(peft, { adapterName: 'p' });
    pipe.setAdapters('k', 0.3);
    const options = { ...CALL, promptSyntax: 'a1111', crossAttentionKwargs: { scale: 0.9 } } as const;
    const { images } = await pipe('a red circle <lora:p:0.5>', options);
    pipe.dispose();
    const redrawing = redraw(images[0]!.metadata[PARAMETERS_KEY]!);
    expect(redrawing.loras.map(({ name, file }) => [name, file.name])).toEqual([
      ['k', 'kohya.safetensors'],
      ['p', 'peft.safetensors'],
    ]);
    const again = await load();
    await expect(loadRedrawingAdapters(again, redrawing, { loras: [kohya] })).rejects.toThrow(NotReproducibleError);
    const other = join(dir, 'other.safetensors');
    await writeDescribed(other, FILES.get('kohya')!);
    await expect(loadRedrawingAdapters(again, redrawing, { loras: [kohya, other] })).rejects.toThrow(
      /other.safetensors' \(SHA-256/,
    );
    await loadRedrawingAdapters(again, redrawing, { loras: [peft, kohya] });
    applyRedrawing(again, redrawing);
    const { images: drawn } = await again(redrawing.prompt, redrawing.options);
    expect(drawn[0]!.data).toEqual(images[0]!.data);
    again.fuseLora();
    const { images: fused } = await again('a', CALL);
    expect(() => redraw(fused[0]!.metadata[PARAMETERS_KEY]!)).toThrow(/adapters/);
    again.dispose();
  });
});

describe('files that are no LoRA for the model', () => {
  const write = async (file: Partial<DescribedFile>) => {
    const path = join(dir, 'bad.safetensors');
    await writeDescribed(path, { tensors: {}, values: {}, ...file });
    return path;
  };
  const unet = 'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q';
  const good = { [`${unet}.lora_A.weight`]: [2, 8], [`${unet}.lora_B.weight`]: [8, 2] };

  test.each<[string, Partial<DescribedFile>, RegExp]>([
    [
      'keys of no layer',
      { tensors: { ...good, 'unet.down_blocks.9.x.lora_A.weight': [2, 8] } },
      /of no layer of the model:\n +unet.down_blocks.9.x.lora_A.weight/,
    ],
    [
      'a model that the pipeline lacks',
      { tensors: { ...good, 'lora_te2_text_model_x.lora_up.weight': [2, 8] } },
      /lora_te2_text_model_x.lora_up.weight/,
    ],
    [
      'another model',
      { tensors: { [`${unet}.lora_A.weight`]: [2, 320], [`${unet}.lora_B.weight`]: [320, 2] } },
      /is no LoRA for this model:\n +of another shape:\n.*got down \[2,320\], up \[320,2\] for a weight of \[8,8\]/,
    ],
    ['ranks that differ', { tensors: { ...good, [`${unet}.lora_A.weight`]: [3, 8] } }, /of another shape/],
    ['half of a layer', { tensors: { [`${unet}.lora_A.weight`]: [2, 8] } }, /without the other tensors of their layer/],
    [
      'magnitudes of another layer',
      { tensors: { ...good, [`${unet}.lora_magnitude_vector`]: [7] } },
      /magnitude \[7\]/,
    ],
    [
      'a checkpoint',
      { tensors: { 'model.diffusion_model.out.2.weight': [4, 8, 3, 3] } },
      /is no LoRA: it holds 1 tensors such as 'model.diffusion_model.out.2.weight'/,
    ],
    ['an empty file', {}, /it holds no tensors/],
    ['metadata that is no JSON', { tensors: good, metadata: { lora_adapter_metadata: '{' } }, /expects a JSON object/],
  ])('%s', async (_, file, message) => {
    const path = await write(file);
    const pipe = await load();
    const { numTensors } = tf.memory();
    const error = await pipe.loadLoraWeights(path).catch((caught: Error) => caught);
    expect(error).toBeInstanceOf(StateDictError);
    expect((error as Error).message).toMatch(message);
    expect(pipe.getListAdapters()).toEqual([]);
    expect(tf.memory().numTensors).toBe(numTensors);
    pipe.dispose();
  });

  test('a truncated file, a pickle, several files, none', async () => {
    const pipe = await load();
    const path = join(dir, 'short.safetensors');
    await writeFile(path, await readFile(kohya));
    await truncate(path, 30_000);
    await expect(pipe.loadLoraWeights(path)).rejects.toThrow(CheckpointError);
    await writeFile(join(dir, 'a.bin'), 'x');
    await expect(pipe.loadLoraWeights(join(dir, 'a.bin'))).rejects.toThrow(/a Python pickle.*safetensors/);
    await expect(pipe.loadLoraWeights(dir)).rejects.toThrow(InvalidArgumentError);
    await expect(pipe.loadLoraWeights(join(dir, 'no.safetensors'))).rejects.toThrow(/there is no file/);
    await pipe.loadLoraWeights(dir, { weightName: 'kohya.safetensors' });
    expect(pipe.getActiveAdapters()).toEqual(['default_0']);
    expect(pipe.loraRecords[0]?.file?.name).toBe('kohya.safetensors');
    pipe.dispose();
    expect(tf.memory().numTensors).toBe(0);
  });
});

test("kohya's names of XL, which number a UNet's blocks through, are those of the same layers", async () => {
  const described = FILES.get('kohya with convolutions')!;
  const unet = new UNet2DConditionModel(KIND.unet);
  const names = new UNetNames(unet.layers.keys());
  const flat = (path: string) => `lora_unet_${path.replaceAll('.', '_')}`;
  const original = new Map([...unet.layers.keys()].map((path) => [flat(path), flat(names.of(path)!)]));
  const renamed = (key: string) => {
    const [layer, ...rest] = key.split('.') as [string, ...string[]];
    return [original.get(layer) ?? layer, ...rest].join('.');
  };
  const rename = <T>(values: Record<string, T>) =>
    Object.fromEntries(Object.entries(values).map(([key, value]) => [renamed(key), value]));
  const path = join(dir, 'sgm.safetensors');
  await writeDescribed(path, { tensors: rename(described.tensors), values: rename(described.values) });
  expect(Object.keys(rename(described.tensors)).join()).toContain(
    'lora_unet_output_blocks_2_1_transformer_blocks_0_attn1_to_q',
  );
  const pipe = await load();
  await pipe.loadLoraWeights(path);
  const scales = (own: UNet2DConditionModel) =>
    own.parameters.map(({ adapters }) => adapters.map(({ scale }) => scale));
  const found = scales(pipe.unet);
  pipe.unloadLoraWeights();
  await pipe.loadLoraWeights(kohya);
  expect(found).toEqual(scales(pipe.unet));
  expect(found.flat().length).toBeGreaterThan(50);
  pipe.dispose();
});
