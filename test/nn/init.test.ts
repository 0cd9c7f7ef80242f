import { afterEach, beforeAll, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { InvalidArgumentError } from '../../src/errors.js';
import { AutoencoderKL, CLIPTextModel, type Model, UNet2DConditionModel } from '../../src/models/index.js';
import { Conv2d, GroupNorm, initRandom, Linear, Weights } from '../../src/nn/index.js';

beforeAll(async () => {
  await pickBackend('wasm');
});

afterEach(() => {
  expect(tf.memory().numTensors).toBe(0);
});

/** Mean and largest size of a parameter's numbers. */
async function spread(w: Weights, index: number): Promise<{ mean: number; largest: number }> {
  const data = await w.parameters[index]!.data();
  return {
    mean: data.reduce((a, b) => a + b, 0) / data.length,
    largest: data.reduce((a, b) => Math.max(a, Math.abs(b)), 0),
  };
}

test("weights start as torch's layers do: uniform within 1 / sqrt(fan in), unit norms", async () => {
  const w = Weights.root();
  new Linear(w.at('linear'), 100, 50);
  new Conv2d(w.at('conv'), 4, 60, 3);
  new GroupNorm(w.at('norm'), 2, 8, 1e-5);
  initRandom(w.parameters, 1);
  for (const [index, fanIn] of [100, 100, 36, 36].entries()) {
    const { mean, largest } = await spread(w, index);
    const bound = 1 / Math.sqrt(fanIn);
    expect(largest).toBeLessThanOrEqual(bound);
    expect(largest).toBeGreaterThan(0.9 * bound);
    expect(Math.abs(mean)).toBeLessThan(0.25 * bound);
  }
  expect(Array.from(await w.parameters[4]!.data())).toEqual(new Array(8).fill(1));
  expect(Array.from(await w.parameters[5]!.data())).toEqual(new Array(8).fill(0));
  for (const parameter of w.parameters) {
    parameter.dispose();
  }
});

async function fingerprint(model: Model): Promise<number[]> {
  const all = await Promise.all(model.parameters.map((parameter) => parameter.data()));
  model.dispose();
  return all.flatMap((data) => [data[0]!, data.at(-1)!]);
}

const UNET = {
  block_out_channels: [8],
  down_block_types: ['CrossAttnDownBlock2D'],
  up_block_types: ['CrossAttnUpBlock2D'],
};
const models: [string, (seed: number) => Model][] = [
  [
    'UNet2DConditionModel',
    (seed) =>
      UNet2DConditionModel.fromConfig(
        { ...UNET, norm_num_groups: 4, cross_attention_dim: 8, attention_head_dim: 2 },
        { init: 'random', seed },
      ),
  ],
  [
    'AutoencoderKL',
    (seed) => AutoencoderKL.fromConfig({ block_out_channels: [8], norm_num_groups: 4 }, { init: 'random', seed }),
  ],
  [
    'CLIPTextModel',
    (seed) =>
      CLIPTextModel.fromConfig(
        { hidden_size: 8, num_attention_heads: 2, intermediate_size: 8, num_hidden_layers: 1, vocab_size: 20 },
        { init: 'random', seed },
      ),
  ],
];

test.each(models)('%s.fromConfig gives the same random weights for the same seed', async (_, build) => {
  const first = await fingerprint(build(5));
  expect(await fingerprint(build(5))).toEqual(first);
  expect(await fingerprint(build(6))).not.toEqual(first);
  expect(first.every(Number.isFinite)).toBe(true);
});

test('fromConfig knows no other way to start', () => {
  const options = { init: 'zeros' as 'random' };
  expect(() => AutoencoderKL.fromConfig({ block_out_channels: [8], norm_num_groups: 4 }, options)).toThrow(
    InvalidArgumentError,
  );
});
