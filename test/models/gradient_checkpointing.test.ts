import { beforeAll, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { measurePeak } from '../../src/backends/peak_memory.js';
import { UNet2DConditionModel } from '../../src/models/index.js';
import { relativeL2 } from '../support/compare.js';

const config = {
  sample_size: 8,
  in_channels: 4,
  out_channels: 4,
  block_out_channels: [8, 16],
  layers_per_block: 1,
  cross_attention_dim: 6,
  attention_head_dim: 2,
  norm_num_groups: 4,
  down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
};

beforeAll(async () => {
  await tf.setBackend('cpu');
});

test('enableGradientCheckpointing gives the same gradients of inputs and of every weight with less memory', async () => {
  const unet = UNet2DConditionModel.fromConfig(config, { init: 'random', seed: 1, attention: 'classic' });
  const sample = tf.randomNormal([2, 6, 8, 4], 0, 1, 'float32', 1) as tf.Tensor4D;
  const context = tf.randomNormal([2, 5, 6], 0, 1, 'float32', 2) as tf.Tensor3D;
  const target = tf.randomNormal([2, 6, 8, 4], 0, 1, 'float32', 3);
  const weights = unet.parameters.map((parameter) => parameter.value);
  const gradients = () =>
    measurePeak(() =>
      tf.grads((x, c) => tf.mean(tf.squaredDifference(unet.forward(x as tf.Tensor4D, 301, c as tf.Tensor3D), target)))([
        sample,
        context,
        ...weights,
      ]),
    );

  const plain = await gradients();
  unet.enableGradientCheckpointing();
  const { numTensors } = tf.memory();
  const checkpointed = await gradients();
  expect(tf.memory().numTensors).toBe(numTensors + checkpointed.value.length);
  expect(checkpointed.value.length).toBe(2 + weights.length);
  checkpointed.value.forEach((gradient, i) => {
    const expected = plain.value[i]!.dataSync();
    const scale = relativeL2(expected, new Float32Array(expected.length));
    const error = relativeL2(tf.sub(gradient, plain.value[i]!).dataSync(), new Float32Array(expected.length));
    expect(error).toBeLessThanOrEqual(1e-5 * Math.max(scale, 1e-3));
  });
  expect(checkpointed.peakBytes).toBeLessThan(0.7 * plain.peakBytes);

  unet.disableGradientCheckpointing();
  const again = await gradients();
  expect(again.peakBytes).toBe(plain.peakBytes);
  tf.dispose([sample, context, target, plain.value, checkpointed.value, again.value]);
  unet.dispose();
});
