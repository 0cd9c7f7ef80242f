import type { Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { addDelta, type WeightChange } from '../../nn/adapter.js';
import type { LoraFamily, Parts } from './lora_families.js';

/** W + scale * delta, where delta is computed from a LoRA file's smaller tensors each time. */
export class LoraChange implements WeightChange {
  readonly live = false;

  constructor(
    private readonly family: LoraFamily,
    private readonly parts: Parts<Tensor>,
  ) {}

  get tensors(): Tensor[] {
    return Object.values(this.parts).filter((tensor) => tensor !== undefined);
  }

  apply(weight: Tensor, scale: number): Tensor {
    return addDelta(weight, this.family.delta(this.parts), scale);
  }
}

/**
 * m / ||W + scale * delta|| (W + scale * delta), the norm taken of each output (DoRA; Liu et al. 2024). As in PEFT, the
 * norm is that of the weight before all adapters with this one's delta.
 */
export class WeightDecomposedChange implements WeightChange {
  readonly live = false;

  /** @param magnitude as many numbers as the weight has outputs */
  constructor(
    private readonly direction: WeightChange,
    private readonly magnitude: Tensor,
  ) {}

  get tensors(): Tensor[] {
    return [...this.direction.tensors, this.magnitude];
  }

  apply(weight: Tensor, scale: number, base: Tensor): Tensor {
    const axes = base.shape.map((_, axis) => axis).slice(1);
    const norm = tf.sqrt(tf.sum(tf.square(this.direction.apply(base, scale, base)), axes, true));
    const factor = tf.div(tf.reshape(this.magnitude, norm.shape), norm);
    return tf.mul(this.direction.apply(weight, scale, base), factor);
  }
}
