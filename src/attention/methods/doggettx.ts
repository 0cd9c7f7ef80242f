import type { Tensor3D } from '@tensorflow/tfjs-core';
import { type AttentionShape, attentionShape, scoreBytes } from '../../ops/attention/score_matrix.js';
import { type AttentionOperands, attentionByQueries } from '../../ops/attention/slices.js';
import { AttentionMethod, type AttentionMethodOptions } from './attention_method.js';
import type { AttentionName } from './options.js';

export interface DoggettxOptions extends AttentionMethodOptions {
  /** Times the bytes of the scores that 16-bit operands need. Default 3. */
  halfFactor?: number;
  /** More steps than this are an error. Default 64. */
  maxSteps?: number;
}

/** Times the bytes of the scores that float32 operands need. */
const FACTOR = 2.5;

/**
 * As many slices of the queries as keep the scores within what is free: required = their bytes x 2.5 (x 3 in 16 bits),
 * and when that is more than is free, 2^ceil(log2(required / free)) steps.
 * Source: AUTOMATIC1111's "Doggettx" (Doggettx/stable-diffusion).
 */
export class DoggettxAttention extends AttentionMethod {
  readonly attentionName: AttentionName = 'doggettx';
  private readonly halfFactor: number;
  private readonly maxSteps: number;

  constructor(options: DoggettxOptions = {}) {
    super(options);
    this.halfFactor = options.halfFactor ?? 3;
    this.maxSteps = options.maxSteps ?? 64;
  }

  /** The number of steps follows from what is free: it is asked once, and the check is about the steps. */
  attend(operands: AttentionOperands): Tensor3D {
    const shape = attentionShape(operands.q, operands.k, operands.heads);
    const free = this.freeMemory();
    const steps = this.steps(shape, free);
    if (steps > this.mostSteps(shape)) {
      const fits = (candidate: AttentionShape) => this.steps(candidate, free) <= this.mostSteps(candidate);
      throw this.memoryError(shape, this.wholeBytes(shape) / this.mostSteps(shape), free, fits);
    }
    return attentionByQueries(operands, this.queriesPerStep(shape, steps));
  }

  /** Steps for that much free memory: 1, or a power of two. */
  steps(shape: AttentionShape, free: number): number {
    const required = this.wholeBytes(shape);
    return required > free ? 2 ** Math.ceil(Math.log2(required / free)) : 1;
  }

  /** What one step takes of the memory that is free now. */
  requiredBytes(shape: AttentionShape): number {
    const steps = Math.min(this.steps(shape, this.freeMemory()), this.mostSteps(shape));
    return (this.wholeBytes(shape) * this.queriesPerStep(shape, steps)) / shape.queries;
  }

  private wholeBytes(shape: AttentionShape): number {
    return scoreBytes(shape) * (shape.bytes === 2 ? this.halfFactor : FACTOR);
  }

  /** Without a limit, a step is never less than one query. */
  private mostSteps(shape: AttentionShape): number {
    return this.maxSteps === Number.POSITIVE_INFINITY ? Math.max(1, shape.queries) : this.maxSteps;
  }

  /** A step that divides the queries badly leaves a tail, which is one more, smaller step. */
  private queriesPerStep(shape: AttentionShape, steps: number): number {
    return Math.max(1, Math.floor(shape.queries / steps));
  }
}
