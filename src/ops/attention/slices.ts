import type { Tensor, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { bias4d, biasBlock, ranges } from './blocks.js';
import { mergeHeads, splitHeads } from './heads.js';
import { asRows, keysTransposed, scaledQueries, softmaxAttention } from './score_matrix.js';

/** The operands of one attention: q, k, v of shape [B, N, heads * d], bias broadcastable to [B, heads, Nq, Nk]. */
export interface AttentionOperands {
  q: Tensor3D;
  k: Tensor3D;
  v: Tensor3D;
  bias?: Tensor;
  heads: number;
  scale: number;
}

interface Prepared {
  q: Tensor4D;
  kT: Tensor4D;
  v: Tensor4D;
}

function prepare({ q, k, v, heads, scale }: AttentionOperands): Prepared {
  return { q: scaledQueries(q, heads, scale), kT: keysTransposed(k, heads), v: splitHeads(v, heads) };
}

function join<T extends Tensor>(parts: T[], axis: number): T {
  return parts.length === 1 ? parts[0]! : (tf.concat(parts, axis) as T);
}

/** Attention with the whole matrix of scores at once. */
export function wholeAttention(operands: AttentionOperands): Tensor3D {
  return tf.tidy(() => {
    const { q, kT, v } = prepare(operands);
    return mergeHeads(softmaxAttention(q, kT, v, operands.bias));
  });
}

/** Attention for `size` queries of every head at a time. */
export function attentionByQueries(operands: AttentionOperands, size: number): Tensor3D {
  return tf.tidy(() => {
    const { q, kT, v } = prepare(operands);
    const bias = operands.bias && bias4d(operands.bias);
    const keys = { begin: 0, size: kT.shape[3] };
    const parts = ranges(q.shape[2], size).map((range) =>
      tf.tidy(() => {
        const some = tf.slice(q, [0, 0, range.begin, 0], [-1, -1, range.size, -1]);
        return softmaxAttention(some, kT, v, bias && biasBlock(bias, range, keys));
      }),
    );
    return mergeHeads(join(parts, 2));
  });
}

/** Attention for `size` rows of batch x heads at a time. */
export function attentionByRows(operands: AttentionOperands, size: number): Tensor3D {
  return tf.tidy(() => {
    const { q, kT, v } = prepare(operands);
    const [batch, heads, queries, dim] = q.shape;
    const bias = operands.bias && bias4d(operands.bias);
    const [qRows, kRows, vRows] = [asRows(q), asRows(kT), asRows(v)];
    const parts = ranges(batch * heads, size).map((range) =>
      tf.tidy(() => {
        const [a, b, c] = [qRows, kRows, vRows].map((x) => tf.slice(x, [range.begin, 0, 0], [range.size, -1, -1])) as [
          Tensor3D,
          Tensor3D,
          Tensor3D,
        ];
        return softmaxAttention(a, b, c, bias && biasOfRows(bias, heads, range.begin, range.size));
      }),
    );
    return mergeHeads(tf.reshape(join(parts, 0), [batch, heads, queries, dim]));
  });
}

/** The bias of some rows of batch x heads: [size or 1, Nq or 1, Nk or 1]. */
export function biasOfRows(bias: Tensor4D, heads: number, begin: number, size: number): Tensor3D {
  const [biasBatch, biasHeads] = bias.shape;
  const rows = asRows(bias);
  if (biasBatch * biasHeads === 1) {
    return rows;
  }
  if (biasHeads === heads && biasBatch > 1) {
    return tf.slice(rows, [begin, 0, 0], [size, -1, -1]);
  }
  const row = (i: number) =>
    (biasBatch === 1 ? 0 : Math.floor(i / heads)) * biasHeads + (biasHeads === 1 ? 0 : i % heads);
  const parts = Array.from({ length: size }, (_, i) => tf.slice(rows, [row(begin + i), 0, 0], [1, -1, -1]));
  return join(parts, 0);
}
