import type { Tensor3D } from '@tensorflow/tfjs-core';
import { type FreeMemory, freeMemory } from '../../backends/traits.js';
import { type AttentionShape, attentionShape, scoreBytes } from '../../ops/attention/score_matrix.js';
import type { AttentionOperands } from '../../ops/attention/slices.js';
import { AttentionMemoryError, mostQueries } from './memory_error.js';
import type { AttentionName, AttentionOptions } from './options.js';

/** What a method is told; each reads the options that are meant for it. */
export type AttentionMethodOptions = Partial<Omit<AttentionOptions, 'name'>>;

/** Computes attention over queries, keys and values that lie side by side in one tensor, as packedQkv makes it. */
export interface PackedAttention {
  readonly attentionName: AttentionName;
  /** @param qkv [B, N, 3 * heads * d] */
  attendPacked(qkv: Tensor3D, operands: Omit<AttentionOperands, 'q' | 'k' | 'v'>): Tensor3D;
}

/** Below this, asking how much memory is free costs more than it can tell. */
const ALWAYS_THERE = 16 * 2 ** 20;

/**
 * A way to compute softmax(scale q k^T + bias) v. It has no weights and no state, so that every attention layer can hold
 * it and layers can share it. All methods give the same numbers up to rounding; they differ in memory and time.
 */
export abstract class AttentionMethod {
  abstract readonly attentionName: AttentionName;
  private readonly askFreeMemory: FreeMemory | undefined;

  constructor(options: AttentionMethodOptions = {}) {
    this.askFreeMemory = options.freeMemory;
  }

  /**
   * softmax(scale q k^T + bias) v for every head: q [B, N, heads * d], k and v [B, Nk, heads * d] -> [B, N, heads * d].
   *
   * @throws AttentionMemoryError when the scores need more memory than is free
   */
  abstract attend(operands: AttentionOperands): Tensor3D;

  /**
   * The formula of this method: bytes of all matrices of scores that it holds at the same time. What grows with the
   * number of tokens and not with its square (queries, keys, values and the output by head) comes on top.
   */
  abstract requiredBytes(shape: AttentionShape): number;

  /** The method that computes a call of that shape: this one, or the one that 'sdp' and 'auto' choose. */
  choose(_shape: AttentionShape): AttentionMethod {
    return this;
  }

  /** Self-attention from one packed tensor, where this method does that on the active backend. */
  get packed(): PackedAttention | null {
    return null;
  }

  /** Whether scores are never rounded to 16 bits, whatever the type of the operands. */
  get scoresInFloat32(): boolean {
    return false;
  }

  /** Bytes that are free now. */
  protected freeMemory(): number {
    return (this.askFreeMemory ?? freeMemory)();
  }

  /** The shape of a call; throws before an allocation that cannot succeed. */
  protected checkedShape({ q, k, heads }: AttentionOperands): AttentionShape {
    const shape = attentionShape(q, k, heads);
    const required = this.requiredBytes(shape);
    if (required <= ALWAYS_THERE && !this.askFreeMemory) {
      return shape;
    }
    const free = this.freeMemory();
    if (required > free) {
      throw this.memoryError(shape, required, free, (candidate) => this.requiredBytes(candidate) <= free);
    }
    return shape;
  }

  protected memoryError(
    shape: AttentionShape,
    required: number,
    free: number,
    fits: (shape: AttentionShape) => boolean,
  ): AttentionMemoryError {
    const tokens = mostQueries(shape, fits);
    return new AttentionMemoryError({ method: this.attentionName, shape, required, free, tokens });
  }
}

/** Two matrices of scores: the scores and their softmax. */
export function bytesOfTwoMatrices(shape: AttentionShape): number {
  return 2 * scoreBytes(shape);
}
