import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import { OutOfMemoryError } from '../../errors.js';
import { type AttentionShape, attentionShape, scoreBytes } from '../../ops/attention/score_matrix.js';
import { attentionByQueries } from '../../ops/attention/slices.js';
import { type AttentionClassOptions, CrossAttention } from '../layers/cross_attention.js';
import type { AttentionProjections } from '../layers/projections.js';
import { describeShortage } from './memory_shortage.js';
import type { AttentionName } from './options.js';

const MOST_STEPS = 64;

/**
 * As many slices of the queries as keep the scores within what is free: required = their bytes x 2.5 (x 3 in 16 bits),
 * and when that is more than is free, 2^ceil(log2(required / free)) steps. The VAE's version knows only the factor 2.5
 * and no end of steps.
 * Source: AUTOMATIC1111's "Doggettx" (Doggettx/stable-diffusion).
 */
export class DoggettxAttention extends CrossAttention {
  override readonly attentionName: AttentionName = 'doggettx';
  private readonly place: 'unet' | 'vae';

  constructor(projections: AttentionProjections, options: AttentionClassOptions = {}) {
    super(projections, options);
    this.place = options.place ?? 'unet';
  }

  override attend(q: Tensor3D, k: Tensor3D, v: Tensor3D, bias?: Tensor): Tensor3D {
    const { heads, scale } = this.projections;
    const shape = attentionShape(q, k, heads);
    const free = this.freeMemory();
    const steps = this.steps(shape, free);
    if (steps > this.mostSteps(shape)) {
      const fits = (candidate: AttentionShape) => this.steps(candidate, free) <= this.mostSteps(candidate);
      const least = this.wholeBytes(shape) / this.mostSteps(shape);
      throw new OutOfMemoryError(describeShortage(this.attentionName, shape, least, free, fits));
    }
    this.taken = this.attentionName;
    return attentionByQueries({ q, k, v, bias, heads, scale }, this.queriesPerStep(shape, steps));
  }

  /** Steps for that much free memory: 1, or a power of two. */
  steps(shape: AttentionShape, free: number): number {
    const required = this.wholeBytes(shape);
    return required > free ? 2 ** Math.ceil(Math.log2(required / free)) : 1;
  }

  /** What one step takes of the memory that is free now. */
  override requiredBytes(shape: AttentionShape): number {
    const steps = Math.min(this.steps(shape, this.freeMemory()), this.mostSteps(shape));
    return (this.wholeBytes(shape) * this.queriesPerStep(shape, steps)) / shape.queries;
  }

  private wholeBytes(shape: AttentionShape): number {
    return scoreBytes(shape) * (this.place === 'unet' && shape.bytes === 2 ? 3 : 2.5);
  }

  private mostSteps(shape: AttentionShape): number {
    return this.place === 'unet' ? MOST_STEPS : Math.max(1, shape.queries);
  }

  /** A step that divides the queries badly leaves a tail, which is one more, smaller step. */
  private queriesPerStep(shape: AttentionShape, steps: number): number {
    return Math.max(1, Math.floor(shape.queries / steps));
  }
}
