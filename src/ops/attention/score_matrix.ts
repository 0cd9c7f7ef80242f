import type { Tensor, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { physicalTypeOf } from '../../backends/precision.js';
import { batchMatMul } from '../batch_mat_mul.js';
import { biasedScores, replace } from './blocks.js';
import { splitHeads } from './heads.js';

/** Sizes that decide about the memory of attention. */
export interface AttentionShape {
  batch: number;
  heads: number;
  /** Query tokens. */
  queries: number;
  /** Key tokens. */
  keys: number;
  /** Channels of one head. */
  dimHead: number;
  /** Of one number of the tensors. */
  bytes: number;
}

/** Bytes of the matrix of scores, [batch, heads, queries, keys]. */
export function scoreBytes(shape: AttentionShape): number {
  return shape.batch * shape.heads * shape.queries * shape.keys * shape.bytes;
}

/** q [B, Nq, heads * d], k [B, Nk, heads * d]. */
export function attentionShape(q: Tensor3D, k: Tensor3D, heads: number): AttentionShape {
  const [batch, queries, channels] = q.shape;
  return {
    batch,
    heads,
    queries,
    keys: k.shape[1],
    dimHead: channels / heads,
    bytes: physicalTypeOf(q) === 'float32' ? 4 : 2,
  };
}

/**
 * softmax(q k + bias) v. Holds two matrices of scores at most (say the scores and their softmax).
 *
 * @param q [..., Nq, d], scaled
 * @param kT [..., d, Nk]
 * @param v [..., Nk, d]
 * @param bias broadcastable to [..., Nq, Nk]
 * @returns [..., Nq, d]
 */
export function softmaxAttention<T extends Tensor>(q: T, kT: T, v: T, bias?: Tensor): T {
  return tf.tidy(() => {
    const weights: Tensor = replace(biasedScores(q, kT, bias), (s) => tf.softmax(s));
    return batchMatMul(weights, v) as T;
  });
}

/** Scaled queries [B, Nq, heads * d] -> [B, heads, Nq, d]. */
export function scaledQueries(q: Tensor3D, heads: number, scale: number): Tensor4D {
  return tf.tidy(() => splitHeads(tf.mul(q, scale) as Tensor3D, heads));
}

/** [B, Nk, heads * d] -> [B, heads, d, Nk], which backends multiply faster than a transposed operand. */
export function keysTransposed(k: Tensor3D, heads: number): Tensor4D {
  return tf.tidy(() => {
    const [b, n, c] = k.shape;
    return tf.transpose(tf.reshape(k, [b, n, heads, c / heads]), [0, 2, 3, 1]) as Tensor4D;
  });
}

/** [B, heads, ...] -> [B * heads, ...]. */
export function asRows(x: Tensor4D): Tensor3D {
  return tf.reshape(x, [x.shape[0] * x.shape[1], x.shape[2], x.shape[3]]);
}
