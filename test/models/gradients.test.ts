import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { AutoencoderKL, UNet2DConditionModel } from '../../src/models/index.js';
import { relativeL2 } from '../support/compare.js';
import { loadGenerated } from '../support/generated_weights.js';
import { workingBackends } from '../support/native.js';
import { loadReferenceCases, numbers, tensor } from '../support/reference_cases.js';

const unets = loadReferenceCases('test/fixtures/models/unet.safetensors').filter(({ tensors }) => tensors.dy);
const vaes = loadReferenceCases('test/fixtures/models/vae.safetensors').filter(({ tensors }) => tensors.dy);

const backends = await workingBackends('onednn', 'wasm', 'tensorflow');

describe.each(backends)("gradients on the backend '%s' equal torch's", (backend) => {
  beforeAll(async () => {
    await pickBackend(backend);
  });

  afterAll(() => {
    expect(tf.memory().numTensors).toBe(0);
  });

  describe.each(['classic', 'memory-efficient', 'sub-quadratic'])("attention '%s'", (attention) => {
    test.each(unets)('of the UNet: $name', async ({ config, tensors }) => {
      const unet = UNet2DConditionModel.fromConfig(config, { attention });
      await loadGenerated(unet);
      const [sample, text] = [
        tensor<tf.Tensor4D>(tensors.sample!),
        tensor<tf.Tensor3D>(tensors.encoder_hidden_states!),
      ];
      const [times, dy] = [tensor<tf.Tensor1D>(tensors.timestep!), tensor<tf.Tensor4D>(tensors.dy!)];
      const predict = tf.grads((x, y) => unet.forward(x as tf.Tensor4D, times, y as tf.Tensor3D));
      const [dSample, dText] = predict([sample, text], dy) as [tf.Tensor, tf.Tensor];
      expect(relativeL2(dSample.dataSync(), numbers(tensors.d_sample!))).toBeLessThan(1e-4);
      expect(relativeL2(dText.dataSync(), numbers(tensors.d_encoder_hidden_states!))).toBeLessThan(1e-4);
      tf.dispose([sample, text, times, dy, dSample, dText]);
      unet.dispose();
    });
  });

  test.each(vaes)('of the VAE decoder: $name', async ({ config, tensors }) => {
    const vae = AutoencoderKL.fromConfig(config);
    await loadGenerated(vae);
    const [latents, dy] = [tensor<tf.Tensor4D>(tensors.latents!), tensor<tf.Tensor4D>(tensors.dy!)];
    const dLatents = tf.grad((x) => vae.decode(x as tf.Tensor4D))(latents, dy);
    expect(relativeL2(dLatents.dataSync(), numbers(tensors.d_latents!))).toBeLessThan(1e-4);
    tf.dispose([latents, dy, dLatents]);
    vae.dispose();
  });
});
