import type { Tensor, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { batchMatMul } from '../batch_mat_mul.js';

/** Block sizes in tokens. */
export interface AttentionBlocks {
  query: number;
  key: number;
}

export interface HeadOperands {
  /** [B, heads, Nq, d] */
  q: Tensor4D;
  /** [B, heads, Nk, d] */
  k: Tensor4D;
  /** [B, heads, Nk, dv] */
  v: Tensor4D;
  /** Every axis 1 or that of [B, heads, Nq, Nk]. */
  bias?: Tensor4D;
  scale: number;
}

/** Numbers in one block of scores; two or three such blocks are alive at a time. */
const SCORES_PER_BLOCK = 1 << 20;
const KEYS_PER_BLOCK = 1024;

/** A block of scores keeps a bounded number of elements whatever the number of tokens. */
export function defaultBlocks(shape: { batch: number; heads: number; queries: number; keys: number }): AttentionBlocks {
  const { batch, heads, queries, keys } = shape;
  const key = Math.min(keys, KEYS_PER_BLOCK);
  const query = Math.max(16, Math.floor(SCORES_PER_BLOCK / (batch * heads * key)));
  return { query: Math.min(query, queries), key };
}

export function blocksOf(q: Tensor4D, k: Tensor4D): AttentionBlocks {
  const [batch, heads, queries] = q.shape;
  return defaultBlocks({ batch, heads, queries, keys: k.shape[2] });
}

/** Tokens [begin, begin + size). */
export interface Range {
  begin: number;
  size: number;
}

export function ranges(total: number, block: number): Range[] {
  return Array.from({ length: Math.ceil(total / block) }, (_, i) => ({
    begin: i * block,
    size: Math.min(block, total - i * block),
  }));
}

/** Tokens [begin, begin + size) of [B, heads, N, ...]. */
export function tokens<T extends Tensor>(x: T, { begin, size }: Range): T {
  if (begin === 0 && size === x.shape[2]) {
    return x;
  }
  const rest = x.rank === 4 ? 1 : 0;
  const begins = [0, 0, begin, ...new Array<number>(rest).fill(0)];
  return tf.slice(x, begins, [-1, -1, size, ...new Array<number>(rest).fill(-1)]) as T;
}

/** The part of a bias that belongs to some queries and keys; axes of size 1 stay. */
export function biasBlock(bias: Tensor4D, rows: Range, columns: Range): Tensor4D {
  const along = (axis: number, range: Range) => (bias.shape[axis] === 1 ? { begin: 0, size: 1 } : range);
  const [r, c] = [along(2, rows), along(3, columns)];
  return tf.slice(bias, [0, 0, r.begin, c.begin], [-1, -1, r.size, c.size]);
}

// Backends multiply plain matrices fastest, so keys are transposed once and scores never need a transposed operand.
export const transposed = (x: Tensor4D) => tf.transpose(x, [0, 1, 3, 2]) as Tensor4D;

/** x is not needed any more once f has used it, so that at most two blocks of scores exist at a time. */
export function replace(x: Tensor, f: (x: Tensor) => Tensor): Tensor4D {
  const y = f(x);
  x.dispose();
  return y as Tensor4D;
}

/** q k^T + bias of scaled queries [..., Nq, d] and transposed keys [..., d, Nk]. */
export function biasedScores<T extends Tensor>(q: T, kT: T, bias?: Tensor): Tensor {
  const scores = batchMatMul(q, kT);
  return bias ? replace(scores, (x) => tf.add(x, bias)) : scores;
}

/** Biased scores of one block of scaled queries: [B, heads, rows, columns]. */
export function scores(q: Tensor4D, kT: Tensor4D, bias: Tensor4D | undefined, rows: Range, columns: Range): Tensor4D {
  return biasedScores(q, kT, bias && biasBlock(bias, rows, columns)) as Tensor4D;
}

/** The result does not depend on these numbers (they shift scores and are taken out again): no gradient flows here. */
export function constant(f: () => Tensor): Tensor {
  return tf.customGrad(() => ({ value: f(), gradFunc: () => [] }))();
}

/** Gives a bias all four axes, which the blocks and kernels index. */
export function bias4d(bias: Tensor): Tensor4D {
  const leading: number[] = new Array(4 - bias.rank).fill(1);
  return tf.reshape(bias, leading.concat(bias.shape) as Tensor4D['shape']);
}

/** -Infinity (no key seen yet, or all hidden) as 0, so that differences with it stay defined. */
export function finiteOrZero(x: Tensor): Tensor {
  return tf.where(tf.equal(x, Number.NEGATIVE_INFINITY), tf.zerosLike(x), x);
}

/** Puts the results of ranges of tokens together again. */
export function concatTokens<T extends Tensor>(parts: T[]): T {
  return parts.length === 1 ? parts[0]! : (tf.concat(parts, 2) as T);
}
