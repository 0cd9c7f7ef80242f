import type { Tensor3D } from '@tensorflow/tfjs-core';
import { traits } from '../../backends/traits.js';
import { type AttentionShape, scoreBytes } from '../../ops/attention/score_matrix.js';
import {
  type AttentionOperands,
  attentionByQueries,
  attentionByRows,
  wholeAttention,
} from '../../ops/attention/slices.js';
import { AttentionMethod, bytesOfTwoMatrices } from './attention_method.js';
import type { AttentionName } from './options.js';

const MEGABYTE = 2 ** 20;
/** Scores that stay in a CPU's caches are fastest. */
const CPU_LIMIT_MB = 32;
/** Leaves room for copies and fragmentation. */
const GPU_SAFETY = 3.3;

const bitLength = (n: number) => (n < 1 ? 0 : Math.floor(Math.log2(n)) + 1);

/** How the scores are cut: not at all, in slices of `size` rows of batch x heads, or of `size` queries. */
export interface InvokeaiPlan {
  by: 'whole' | 'rows' | 'queries';
  size: number;
}

/**
 * Scores of at most 32 MB on a CPU, of free memory / 3.3 on a GPU: when they are larger, 1 << bitLength((MB - 1) / limit)
 * slices, of batch x heads when there are that many, else of queries.
 * Source: AUTOMATIC1111's "InvokeAI" (invoke-ai/InvokeAI).
 */
export class InvokeaiAttention extends AttentionMethod {
  readonly attentionName: AttentionName = 'invokeai';

  attend(operands: AttentionOperands): Tensor3D {
    const { by, size } = this.plan(this.checkedShape(operands));
    switch (by) {
      case 'whole':
        return wholeAttention(operands);
      case 'rows':
        return attentionByRows(operands, size);
      case 'queries':
        return attentionByQueries(operands, size);
    }
  }

  plan(shape: AttentionShape): InvokeaiPlan {
    const rows = shape.batch * shape.heads;
    const limit = traits().isGpu ? this.freeMemory() / GPU_SAFETY / MEGABYTE : CPU_LIMIT_MB;
    const size = Math.floor(scoreBytes(shape) / MEGABYTE);
    if (size <= limit) {
      return { by: 'whole', size: rows };
    }
    const slices = 2 ** bitLength(Math.floor((size - 1) / limit));
    return slices <= rows
      ? { by: 'rows', size: Math.floor(rows / slices) }
      : { by: 'queries', size: Math.max(1, Math.floor(shape.queries / slices)) };
  }

  requiredBytes(shape: AttentionShape): number {
    const { by, size } = this.plan(shape);
    const slice = by === 'queries' ? { ...shape, queries: size } : { ...shape, batch: 1, heads: size };
    return bytesOfTwoMatrices(slice);
  }
}
