// A UNet for the benchmarks that only need one, with inputs for any batch: random weights of Stable Diffusion 1.5's size,
// or a checkpoint's.
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { measurePeak } from '../dist/backends/peak_memory.js';
import { KeyValueCache, pickBackend, UNet2DConditionModel } from '../dist/index.js';

/** Command line options of every benchmark that draws with a UNet. */
export const UNET_OPTIONS = {
  model: { type: 'string', default: 'sd15' },
  size: { type: 'string' },
  dtype: { type: 'string', default: 'float32' },
  backend: { type: 'string', default: 'auto' },
};

const SD15 = { sample_size: 64, cross_attention_dim: 768 };
const GIGABYTE = 2 ** 30;

/** 512 where a fast backend and some memory are there, else 256. */
function sizeThatFits(free) {
  return tf.getBackend() === 'wasm' || tf.getBackend() === 'cpu' || free < 8 * GIGABYTE ? 256 : 512;
}

/**
 * @returns unet, picture size in pixels, and `call(batch)`, which runs one step and gives { seconds, peakBytes } with
 *   peakBytes above the weights, the prompt's keys and values, and the inputs
 */
export async function startUnet({ model, size, dtype, backend }, free) {
  tf.env().set('PROD', true);
  await pickBackend(backend);
  const unet =
    model === 'sd15'
      ? UNet2DConditionModel.fromConfig(SD15, { init: 'random', dtype })
      : await UNet2DConditionModel.fromPretrained(join(model, 'unet'), { dtype });
  const pixels = size ? Number(size) : model === 'sd15' ? sizeThatFits(free()) : 8 * unet.parsed.sampleSize[0];
  const { inChannels, crossAttentionDim } = unet.parsed;

  async function call(batch) {
    const sample = tf.randomNormal([batch, pixels / 8, pixels / 8, inChannels], 0, 1, 'float32', 1);
    const text = tf.randomNormal([batch, 77, crossAttentionDim[0]], 0, 1, 'float32', 2);
    const cache = new KeyValueCache();
    try {
      const begin = performance.now();
      const { value, peakBytes } = await measurePeak(async () => {
        const out = unet.forward(sample, 500, text, { cache });
        await out.data();
        return out;
      });
      value.dispose();
      return { seconds: (performance.now() - begin) / 1000, peakBytes };
    } finally {
      cache.dispose();
      tf.dispose([sample, text]);
    }
  }
  return { unet, pixels, call };
}

/** '1.23 GB', or '45.6 MB' below a tenth of one. */
export function gigabytes(bytes) {
  return bytes < GIGABYTE / 10 ? `${(bytes / 2 ** 20).toPrecision(3)} MB` : `${(bytes / GIGABYTE).toPrecision(3)} GB`;
}
