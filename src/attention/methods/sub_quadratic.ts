import type { Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { bias4d } from '../../ops/attention/blocks.js';
import { computesByHead } from '../../ops/attention/by_head.js';
import {
  type ChunkOptions,
  chunkedAttention,
  DEFAULT_QUERY_CHUNK,
  keysPerChunk,
} from '../../ops/attention/efficient_dot_product_attention.js';
import { mergeHeads, splitHeads } from '../../ops/attention/heads.js';
import { type AttentionShape, scoreBytes } from '../../ops/attention/score_matrix.js';
import type { AttentionOperands } from '../../ops/attention/slices.js';
import { AttentionMethod, type AttentionMethodOptions, bytesOfTwoMatrices } from './attention_method.js';
import type { AttentionName } from './options.js';

const DEFAULT_THRESHOLD = 70;

/**
 * Chunks of queries and of keys, of which only some scores exist at a time. While the whole matrix of scores fits into
 * the threshold (70% of the free memory), or a chunk of the least size covers all keys, only the queries are chunked.
 * Source: AUTOMATIC1111's "sub-quadratic" (Birch-san, brkirch, Amin Rezaei), after Rabe & Staats 2021.
 */
export class SubQuadraticAttention extends AttentionMethod {
  readonly attentionName: AttentionName = 'sub-quadratic';
  private readonly options: AttentionMethodOptions;

  constructor(options: AttentionMethodOptions = {}) {
    super(options);
    this.options = options;
  }

  attend(operands: AttentionOperands): Tensor3D {
    const { q, k, v, bias, heads, scale } = operands;
    const chunks = { ...this.chunks(this.checkedShape(operands)), scale };
    return tf.tidy(() => {
      const [q4, k4, v4] = [splitHeads(q, heads), splitHeads(k, heads), splitHeads(v, heads)];
      return mergeHeads(chunkedAttention(q4, k4, v4, chunks, bias && bias4d(bias)));
    });
  }

  /** The chunk sizes for that shape and the memory that is free now. */
  chunks(shape: AttentionShape): ChunkOptions {
    const { chunkThreshold = DEFAULT_THRESHOLD, queryChunkSize = DEFAULT_QUERY_CHUNK, useCheckpoint } = this.options;
    let { kvChunkSize, kvChunkSizeMin } = this.options;
    if (chunkThreshold > 0) {
      const threshold = Math.floor((this.freeMemory() * chunkThreshold) / 100);
      // bytes of one key and one value of every row
      kvChunkSizeMin ??= Math.floor(threshold / (shape.batch * shape.heads * shape.bytes * 2 * shape.dimHead));
      if (scoreBytes(shape) <= threshold) {
        kvChunkSize = shape.keys;
      }
    }
    return { queryChunkSize, kvChunkSize, kvChunkSizeMin: kvChunkSizeMin || undefined, useCheckpoint };
  }

  requiredBytes(shape: AttentionShape): number {
    const chunks = this.chunks(shape);
    const queries = Math.min(chunks.queryChunkSize ?? DEFAULT_QUERY_CHUNK, shape.queries);
    const keys = keysPerChunk(shape.keys, chunks);
    const byHead = keys < shape.keys && chunks.useCheckpoint !== false && computesByHead();
    return bytesOfTwoMatrices({ ...shape, queries, keys, ...(byHead ? { batch: 1, heads: 1 } : {}) });
  }
}
