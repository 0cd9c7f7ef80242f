import type { Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';

/** How an adapter changes one weight: LoRA and its kin. */
export interface WeightChange {
  /** The tensors that it is made of. They belong to whoever made the change. */
  readonly tensors: readonly Tensor[];
  /**
   * Whether its tensors are being trained: it is then applied anew at each use, so that gradients reach them and updates
   * are seen. Otherwise the changed weight is computed once and kept.
   */
  readonly live: boolean;
  /**
   * @param weight float32, in the checkpoint's shape: [out, in] of a Linear, [out, in, height, width] of a Conv2d
   * @param scale the adapter's strength
   * @param base the weight before all adapters
   * @returns the changed weight, of the same shape; called inside of tf.tidy
   */
  apply(weight: Tensor, scale: number, base: Tensor): Tensor;
}

/** A change and its strength at one weight. */
export interface Adapter {
  readonly name: string;
  readonly change: WeightChange;
  /** 0 switches the adapter off. */
  readonly scale: number;
}

/** W + scale * delta. */
export class FullDelta implements WeightChange {
  readonly tensors: readonly Tensor[];

  /** @param delta as many numbers as the weight, in the checkpoint's order */
  constructor(
    private readonly delta: Tensor,
    readonly live = false,
  ) {
    this.tensors = [delta];
  }

  apply(weight: Tensor, scale: number): Tensor {
    return addDelta(weight, this.delta, scale);
  }
}

/** W + scale * up down (LoRA; Hu et al. 2021). */
export class LowRankDelta implements WeightChange {
  readonly tensors: readonly Tensor[];

  /**
   * @param down [rank, in], or [rank, in, height, width] for a convolution
   * @param up [out, rank], or [out, rank, 1, 1]
   */
  constructor(
    private readonly down: Tensor,
    private readonly up: Tensor,
    readonly live = false,
  ) {
    this.tensors = [down, up];
    if (up.size / up.shape[0]! !== down.shape[0]) {
      throw new InvalidArgumentError(
        `[LowRankDelta] up expects [out, ${down.shape[0]}] for down [${down.shape}], got [${up.shape}]`,
      );
    }
  }

  apply(weight: Tensor, scale: number): Tensor {
    const matrix = (x: Tensor) => tf.reshape(x, [x.shape[0]!, -1]) as tf.Tensor2D;
    return addDelta(weight, tf.matMul(matrix(this.up), matrix(this.down)), scale);
  }
}

/** weight + scale * delta, where delta has as many numbers as the weight. */
export function addDelta(weight: Tensor, delta: Tensor, scale: number): Tensor {
  if (delta.size !== weight.size) {
    throw new InvalidArgumentError(
      `[adapter] delta expects the numbers of a weight [${weight.shape}], got a tensor [${delta.shape}]`,
    );
  }
  return tf.add(weight, tf.mul(tf.reshape(delta, weight.shape), scale));
}
