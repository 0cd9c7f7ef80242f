import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { ConfigError, InvalidArgumentError } from '../../src/errors.js';
import { ControlNetModel, type MultiControlNetModel } from '../../src/models/index.js';
import {
  type RawImage,
  StableDiffusionControlNetPipeline,
  StableDiffusionPipeline,
} from '../../src/pipelines/index.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { loadSafetensors } from '../support/safetensors.js';

const { metadata } = loadSafetensors('test/fixtures/pipeline_controlnet.safetensors');
const kinds = JSON.parse(metadata.kinds!) as Record<string, PipelineConfigs>;
const image: RawImage = {
  width: 24,
  height: 16,
  data: Uint8Array.from({ length: 24 * 16 * 3 }, (_, i) => (i * 37) % 251),
};
const CALL = { image, seed: 1, numInferenceSteps: 3 };

let dir: string;
let pipe: StableDiffusionControlNetPipeline;
let two: StableDiffusionControlNetPipeline;
let tensors: number;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(join(dir, 'one'), kinds.one!);
  await writeCheckpoint(join(dir, 'two'), kinds.two!);
  pipe = await StableDiffusionControlNetPipeline.fromPretrained(join(dir, 'one'), { backend: 'wasm' });
  two = await StableDiffusionControlNetPipeline.fromPretrained(join(dir, 'two'));
});

afterAll(async () => {
  pipe.dispose();
  two.dispose();
  expect(tf.memory().numTensors).toBe(0);
  await rm(dir, { recursive: true });
});

beforeEach(() => {
  tensors = tf.memory().numTensors;
});
afterEach(() => {
  expect(tf.memory().numTensors).toBe(tensors);
});

const draw = async (drawer = pipe, options: object = CALL) =>
  (await drawer('a', options as typeof CALL)).images[0]!.data;

describe('control', () => {
  test('of scale 0 changes nothing, and is not computed', async () => {
    const plain = await StableDiffusionPipeline.fromPretrained(join(dir, 'one'), {}).catch((error) => error);
    expect(plain).toBeInstanceOf(ConfigError);
    const { controlnet: _, ...components } = pipe.components;
    const text = new StableDiffusionPipeline(components);
    const { images } = await text('a', { width: 24, height: 16, seed: 1, numInferenceSteps: 3 });
    const predict = countCalls(pipe.controlnet as ControlNetModel);
    expect(await draw(pipe, { ...CALL, controlnetConditioningScale: 0 })).toEqual(images[0]!.data);
    expect(predict.calls()).toBe(0);
    expect(await draw(pipe, { ...CALL, controlGuidanceStart: 0.4, controlGuidanceEnd: 0.5 })).toEqual(images[0]!.data);
    expect(await draw()).not.toEqual(images[0]!.data);
    expect(predict.calls()).toBe(3);
    predict.restore();
  });

  test('draws the same with offload, of the model and of its blocks', async () => {
    const plain = await draw();
    await pipe.enableModelCpuOffload();
    tensors = tf.memory().numTensors;
    expect((pipe.controlnet as ControlNetModel).parameters.some(({ isLoaded }) => isLoaded)).toBe(false);
    expect(await draw()).toEqual(plain);
    await pipe.enableSequentialCpuOffload();
    expect(await draw()).toEqual(plain);
    await pipe.disableCpuOffload();
    tensors = tf.memory().numTensors;
  });

  test('of several ControlNets is saved and loaded with them', async () => {
    const saved = join(dir, 'saved');
    await two.savePretrained(saved);
    const again = await StableDiffusionControlNetPipeline.fromPretrained(saved);
    expect((again.controlnet as MultiControlNetModel).nets).toHaveLength(2);
    const call = { ...CALL, image: [image, image] };
    expect(await draw(again, call)).toEqual(await draw(two, call));
    again.dispose();
  });

  test('takes a list of ControlNets, and lists of pictures by prompt', async () => {
    const nets = [join(dir, 'one/controlnet'), join(dir, 'two/controlnet_1')].map((path) =>
      ControlNetModel.fromPretrained(path),
    );
    const listed = await StableDiffusionControlNetPipeline.fromPretrained(join(dir, 'one'), {
      controlnet: await Promise.all(nets),
    });
    const other: RawImage = { ...image, data: image.data.slice().reverse() };
    const call = {
      ...CALL,
      seed: [1, 2],
      image: [
        [image, other],
        [other, image],
      ],
    };
    const both = (await listed(['a', 'b'], call)).images.map(({ data }) => data);
    expect(both[0]).toEqual(await draw(listed, { ...CALL, image: [image, other] }));
    expect(both[1]).toEqual((await listed('b', { ...CALL, seed: 2, image: [other, image] })).images[0]!.data);
    listed.dispose();
  });

  test.each([
    ['no picture', { image: undefined }, /image expects a picture for the ControlNet/],
    [
      'an end before the start',
      { controlGuidanceStart: 0.6, controlGuidanceEnd: 0.5 },
      /less than controlGuidanceEnd, 0.5/,
    ],
    [
      'a start outside of the steps',
      { controlGuidanceStart: 1.5 },
      /controlGuidanceStart expects a number from 0 to 1/,
    ],
    ['two scales for one', { controlnetConditioningScale: [1, 2] }, /one number for the one ControlNet/],
    ['a picture that is none', { image: { width: 3 } }, /image expects a path/],
    ['latents of another size', () => ({ latents: tf.zeros([1, 8, 8, 4]) }), /latents expects a tensor \[1,8,12,4\]/],
    ['three pictures for two prompts', { image: [image, image, image] }, /one picture for all or one for each prompt/],
  ])('refuses %s', async (_, options: unknown, message) => {
    const given = (typeof options === 'function' ? options() : options) as { latents?: tf.Tensor };
    const call = pipe(['a', 'b'].slice(0, given.latents ? 1 : 2), { ...CALL, ...(given as object) } as typeof CALL);
    await expect(call).rejects.toThrow(InvalidArgumentError);
    await expect(call).rejects.toThrow(message);
    given.latents?.dispose();
  });

  test('of two ControlNets refuses one picture', async () => {
    await expect(two('a', CALL)).rejects.toThrow(/a list with one picture for each of 2 ControlNets/);
  });

  test('of a ControlNet for another UNet is refused', async () => {
    const config = kinds.one!.controlnet as Record<string, unknown>;
    const controlnet = ControlNetModel.fromConfig({ ...config, cross_attention_dim: 24 });
    const make = () => new StableDiffusionControlNetPipeline({ ...pipe.components, controlnet });
    expect(make).toThrow(ConfigError);
    expect(make).toThrow(/made for another UNet: it has channels 8,16, layers 1,1, cross_attention_dim 24/);
  });
});

/** Counts the calls of a model's `predict`. */
function countCalls(net: ControlNetModel): { calls: () => number; restore: () => void } {
  let count = 0;
  const { predict } = Object.getPrototypeOf(net) as ControlNetModel;
  net.predict = function (...args) {
    count++;
    return predict.apply(this, args);
  };
  return { calls: () => count, restore: () => Reflect.deleteProperty(net, 'predict') };
}
