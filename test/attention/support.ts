import * as tf from '@tensorflow/tfjs-core';
import { AttentionProjections } from '../../src/attention/index.js';
import { initRandom, Weights } from '../../src/nn/index.js';

export interface LayerShape {
  batch: number;
  heads: number;
  dimHead: number;
  queries: number;
  keys: number;
}

/** Random weights of one attention layer whose hidden states and context have heads * dimHead channels. */
export function randomProjections(heads: number, dimHead: number, seed = 1): AttentionProjections {
  const root = Weights.root();
  const projections = new AttentionProjections(root.at('attn'), { queryDim: heads * dimHead, heads, dimHead });
  initRandom(root.parameters, seed);
  return projections;
}

/** Queries, keys and values [B, N, heads * d] with scores of a spread that makes the softmax far from uniform. */
export function randomOperands(shape: LayerShape, seed = 1): [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D] {
  const { batch, heads, dimHead, queries, keys } = shape;
  const make = (tokens: number, i: number) =>
    tf.randomNormal([batch, tokens, heads * dimHead], 0, 1.5, 'float32', seed * 10 + i) as tf.Tensor3D;
  return [make(queries, 1), make(keys, 2), make(keys, 3)];
}
