import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { UNet2DConditionModel } from '../../src/models/index.js';
import { type Gpu, startWebGpu } from './support.js';

/** Stable Diffusion 1.5's unet/config.json. */
const SD15 = {
  _class_name: 'UNet2DConditionModel',
  act_fn: 'silu',
  attention_head_dim: 8,
  block_out_channels: [320, 640, 1280, 1280],
  center_input_sample: false,
  cross_attention_dim: 768,
  down_block_types: ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
  downsample_padding: 1,
  flip_sin_to_cos: true,
  freq_shift: 0,
  in_channels: 4,
  layers_per_block: 2,
  mid_block_scale_factor: 1,
  norm_eps: 1e-5,
  norm_num_groups: 32,
  out_channels: 4,
  sample_size: 64,
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
};

describe('work that is recorded and not executed', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await startWebGpu();
  });
  afterEach(async () => {
    expect(await gpu.complaints()).toEqual([]);
    expect(tf.memory().numTensors).toBe(0);
    expect(gpu.backend.memoryInfo().bytesInUse).toBe(0);
  });

  test('recorded work is not executed, its shaders are compiled ahead', async () => {
    const { backend } = gpu;
    const before = backend.queue.pipelines.size;
    const x = tf.tensor1d([1, 2, 3]);
    const progress: string[] = [];
    await backend.compile(
      () => {
        tf.asinh(tf.mul(x, x));
      },
      (done, total) => progress.push(`${done}/${total}`),
    );
    const made = backend.queue.pipelines.size - before;
    expect(made).toBeGreaterThan(0);
    expect(progress.at(-1)).toBe(`${progress.length}/${progress.length}`);
    const y = tf.tidy(() => tf.asinh(tf.mul(x, x)));
    expect(backend.queue.pipelines.size - before).toBe(made);
    expect([...(await y.data())].map((value) => value.toFixed(5))).toEqual(['0.88137', '2.09471', '2.89344']);
    tf.dispose([x, y]);
  });

  test('numbers of the GPU are not read synchronously, those that never left are', async () => {
    const x = tf.tensor1d([1, 2, 3]);
    const y = tf.square(x);
    expect([...x.dataSync()]).toEqual([1, 2, 3]);
    expect(() => y.dataSync()).toThrow(/use await tensor.data\(\)/);
    expect([...(await y.data())]).toEqual([1, 4, 9]);
    tf.dispose([x, y]);
  });

  test('what a GPU cannot do is refused by name', () => {
    const bytes = new Uint8Array(7);
    tf.tidy(() => {
      expect(() => tf.einsum('i,i->', tf.ones([2]), tf.ones([2]))).toThrow(/Einsum/);
      expect(() => tf.add(tf.complex([1], [2]), 1)).toThrow(/complex64/);
      expect(() => gpu.backend.toPhysical(tf.ones([2]), 'bfloat16')).toThrow(/use float16/);
      expect(() => gpu.backend.fromBytes(bytes, 'F32', [2], 'float32')).toThrow(/needs 8 bytes, got 7/);
    });
  });

  // last, for none of its many shaders needs to be compiled
  test('a step of Stable Diffusion 1.5 at 512 x 512 with guidance is at most 700 dispatches', () => {
    const { backend } = gpu;
    const dtype = gpu.types.at(-1)!;
    const unet = UNet2DConditionModel.fromConfig(SD15, { attention: 'memory-efficient' });
    const largest = Math.max(...unet.parameters.map(({ size }) => size));
    const zeros = new Uint8Array(largest * 2);
    backend.record(() => {
      for (const parameter of unet.parameters) {
        parameter.load(zeros.subarray(0, parameter.size * 2), 'F16', dtype);
      }
    });
    const weights = backend.memoryInfo().bytesInUse;
    expect(weights).toBeGreaterThan(859e6 * (dtype === 'float16' ? 2 : 4));
    backend.resetPeak();
    const { dispatches, submissions, byKernel, maxFlops } = backend.record(() => {
      const latents = tf.randomNormal([1, 64, 64, 4]) as tf.Tensor4D;
      const both = tf.concat([latents, latents], 0) as tf.Tensor4D;
      const noise = unet.forward(both, 500, tf.randomNormal([2, 77, 768]) as tf.Tensor3D);
      const [negative, positive] = tf.split(noise, 2, 0);
      tf.add(negative!, tf.mul(tf.sub(positive!, negative!), 7.5));
    });
    const above = backend.memoryInfo().peakBytes - weights;
    console.log(
      `${dtype}: ${dispatches} dispatches in ${submissions} submissions, at most ${(maxFlops / 1e9).toFixed(0)} GFLOP each, ` +
        `${(above / 2 ** 20).toFixed(0)} MiB above ${(weights / 2 ** 20).toFixed(0)} MiB of weights; ${JSON.stringify(byKernel)}`,
    );
    expect(dispatches).toBeGreaterThan(100);
    expect(dispatches).toBeLessThanOrEqual(700);
    // 100 ms of a GPU that does 1 TFLOP/s
    expect(maxFlops).toBeLessThanOrEqual(1e11);
    unet.dispose();
  });
});
