import '@tensorflow/tfjs-backend-cpu';
import { expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { Transformer2DModel } from '../../src/models/transformers/transformer_2d.js';
import { initRandom, Weights } from '../../src/nn/index.js';
import { relativeL2 } from '../support/compare.js';

const identity = (size: number) => Float32Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0));

test('a transformer without blocks adds its norm, with an epsilon of 1e-6, to its input', async () => {
  await tf.setBackend('cpu');
  const channels = 8;
  const weights = Weights.root();
  const model = new Transformer2DModel(weights, {
    ...{ channels, heads: 2, layers: 0, crossAttentionDim: 4, groups: 1 },
    ...{ useLinearProjection: true, onlyCrossAttention: false, upcastAttention: false, attention: { name: 'classic' } },
  });
  initRandom(weights.parameters, 0);
  for (const parameter of weights.parameters) {
    const vector = new Float32Array(channels).fill(parameter.path === 'norm.weight' ? 1 : 0);
    parameter.assign(parameter.shape.length === 2 ? identity(channels) : vector);
  }
  tf.tidy(() => {
    const x = tf.randomNormal<tf.Rank.R4>([1, 5, 5, channels], 0, 1e-3, 'float32', 1);
    const { mean, variance } = tf.moments(x);
    const expected = tf.add(x, tf.div(tf.sub(x, mean), tf.sqrt(tf.add(variance, 1e-6))));
    expect(
      relativeL2(model.forward(x, { encoderHiddenStates: tf.zeros([1, 1, 4]) }).dataSync(), expected.dataSync()),
    ).toBeLessThan(1e-5);
  });
  for (const parameter of weights.parameters) {
    parameter.dispose();
  }
});
