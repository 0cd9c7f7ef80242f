import type { Tensor, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { expectThat, is } from '../../utils/check.js';
import { checkpoint } from '../checkpoint.js';
import { bias4d, biasBlock, ranges } from './blocks.js';
import { attentionForward } from './forward.js';
import { memoryEfficientAttention } from './memory_efficient_attention.js';
import { softmaxAttention } from './score_matrix.js';

export const DEFAULT_QUERY_CHUNK = 1024;

export interface ChunkOptions {
  /** Queries at a time. Default 1024. */
  queryChunkSize?: number;
  /** Keys at a time. Default floor(sqrt(keys)). */
  kvChunkSize?: number;
  /** The least number of keys at a time. */
  kvChunkSizeMin?: number;
  /** Keep no scores for the backward pass, which computes each chunk once more. Default true. */
  useCheckpoint?: boolean;
  /** Factor of the scores; 1 / sqrt(channels) when left out. */
  scale?: number;
}

/** Keys at a time: kvChunkSize or floor(sqrt(keys)), not less than kvChunkSizeMin, and never more than there are. */
export function keysPerChunk(keys: number, { kvChunkSize, kvChunkSizeMin = 1 }: ChunkOptions): number {
  return Math.min(Math.max(kvChunkSize ?? Math.floor(Math.sqrt(keys)), kvChunkSizeMin), keys);
}

/** All keys at once: plain attention for each chunk of queries. */
function queryChunks(q: Tensor4D, k: Tensor4D, v: Tensor4D, options: ChunkOptions, bias?: Tensor4D): Tensor4D {
  const { queryChunkSize = DEFAULT_QUERY_CHUNK, useCheckpoint = true, scale = 1 / Math.sqrt(q.shape[3]) } = options;
  const keys = { begin: 0, size: k.shape[2] };
  return tf.tidy(() => {
    const scaled = tf.mul(q, scale);
    const kT = tf.transpose(k, [0, 1, 3, 2]);
    const parts = ranges(q.shape[2], queryChunkSize).map((rows) =>
      tf.tidy(() => {
        const some = tf.slice(scaled, [0, 0, rows.begin, 0], [-1, -1, rows.size, -1]);
        const operands: Tensor[] = [some, kT, v, ...(bias ? [biasBlock(bias, rows, keys)] : [])];
        const attend = (a?: Tensor, b?: Tensor, c?: Tensor, d?: Tensor) => softmaxAttention(a!, b!, c!, d);
        return (useCheckpoint ? checkpoint(attend, operands) : attend(...operands)) as Tensor4D;
      }),
    );
    return parts.length === 1 ? parts[0]! : tf.concat(parts, 2);
  });
}

/** efficientDotProductAttention on [B, heads, N, d], with a bias broadcastable to [B, heads, Nq, Nk]. */
export function chunkedAttention(
  q: Tensor4D,
  k: Tensor4D,
  v: Tensor4D,
  options: ChunkOptions,
  bias?: Tensor4D,
): Tensor4D {
  const { queryChunkSize = DEFAULT_QUERY_CHUNK, useCheckpoint = true, scale = 1 / Math.sqrt(q.shape[3]) } = options;
  const [queries, keys] = [q.shape[2], k.shape[2]];
  const key = keysPerChunk(keys, options);
  if (key === keys) {
    return queryChunks(q, k, v, options, bias);
  }
  const blocks = { query: Math.min(queryChunkSize, queries), key };
  return useCheckpoint
    ? memoryEfficientAttention(q, k, v, { scale, bias, blocks, impl: 'composed' })
    : tf.tidy(() => attentionForward({ q, k, v, bias, scale }, blocks, true)[0]);
}

/**
 * Exact attention softmax(scale q k^T + bias) v in chunks of queries and keys, with a running maximum and sum of the
 * weights; when one chunk covers all keys, each chunk of queries is plain attention.
 * Source: "Self-attention Does Not Need O(n^2) Memory" (Rabe & Staats 2021).
 *
 * @param query [batch * heads, tokens, channels]
 * @param key [batch * heads, key tokens, channels]
 * @param value [batch * heads, key tokens, value channels]
 * @returns [batch * heads, tokens, value channels]
 * @throws InvalidArgumentError when shapes or chunk sizes make no sense
 */
export function efficientDotProductAttention(
  query: Tensor3D,
  key: Tensor3D,
  value: Tensor3D,
  options: ChunkOptions & {
    /** Broadcastable to [batch * heads, tokens, key tokens]. */
    bias?: Tensor;
  } = {},
): Tensor3D {
  checkArguments(query, key, value, options);
  const { bias, ...chunks } = options;
  return tf.tidy(() => {
    const [q, k, v] = [query, key, value].map((x) => tf.expandDims(x, 1)) as [Tensor4D, Tensor4D, Tensor4D];
    const rowsBias = bias && (bias.rank === 3 ? (tf.expandDims(bias, 1) as Tensor4D) : bias4d(bias));
    return tf.squeeze(chunkedAttention(q, k, v, chunks, rowsBias), [1]) as Tensor3D;
  });
}

function checkArguments(q: Tensor3D, k: Tensor3D, v: Tensor3D, options: ChunkOptions): void {
  const fits =
    [q, k, v].every((x) => x.rank === 3 && x.shape[0] === q.shape[0]) &&
    q.shape[2] === k.shape[2] &&
    k.shape[1] === v.shape[1];
  if (!fits) {
    throw new InvalidArgumentError(
      '[efficientDotProductAttention] expects query, key, value of shape [batch * heads, tokens, channels], ' +
        `got [${q.shape}], [${k.shape}], [${v.shape}]`,
    );
  }
  for (const name of ['queryChunkSize', 'kvChunkSize', 'kvChunkSizeMin'] as const) {
    const value = options[name];
    expectThat(
      value === undefined || is.count(value),
      'efficientDotProductAttention',
      name,
      'a positive integer',
      value,
    );
  }
}
