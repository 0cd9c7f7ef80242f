import { OutOfMemoryError } from '../../errors.js';
import type { AttentionShape } from '../../ops/attention/score_matrix.js';

/** The numbers behind an AttentionMemoryError. */
export interface AttentionShortage {
  /** Name of the attention method. */
  method: string;
  shape: AttentionShape;
  /** Bytes that the scores need. */
  required: number;
  /** Bytes that are free. */
  free: number;
  /** The most query tokens of this call that would fit; 0 when none would. */
  tokens: number;
}

/** The scores of an attention layer need more memory than is free. */
export class AttentionMemoryError extends OutOfMemoryError {
  /** @param advice what to do beside taking fewer tokens, in the words of whoever knows what the tokens are */
  constructor(
    readonly shortage: AttentionShortage,
    advice = '',
  ) {
    super(describeShortage(shortage, advice));
  }
}

function formatBytes(bytes: number): string {
  const units = ['KB', 'MB', 'GB'];
  const power = Math.min(3, Math.max(1, Math.floor(Math.log2(bytes) / 10)));
  return `${(bytes / 1024 ** power).toPrecision(3)} ${units[power - 1]}`;
}

function describeShortage({ method, shape, required, free, tokens }: AttentionShortage, advice: string): string {
  const { batch, heads, queries, keys } = shape;
  const fitting = tokens === 0 ? '' : `${tokens} of these ${queries} tokens would fit${advice && ` ${advice}`}; `;
  return (
    `[attention] '${method}' needs ${formatBytes(required)} for scores of ${batch} x ${heads} x ${queries} x ${keys}, ` +
    `${formatBytes(free)} is free; ${fitting}take a smaller batch, or attention 'memory-efficient', which needs no such matrix`
  );
}

/** The shape with fewer tokens; keys follow the queries in self-attention, where both are the same tokens. */
function withQueries(shape: AttentionShape, queries: number): AttentionShape {
  return { ...shape, queries, keys: shape.keys === shape.queries ? queries : shape.keys };
}

/** The largest number of query tokens up to shape.queries for which `fits` holds; 0 when there is none. */
export function mostQueries(shape: AttentionShape, fits: (shape: AttentionShape) => boolean): number {
  let [low, high] = [0, shape.queries];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(withQueries(shape, middle))) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}
