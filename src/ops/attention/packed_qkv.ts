import type { Tensor, Tensor1D, Tensor2D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { type Implementation, runFused } from '../fused.js';
import { linear } from '../linear.js';

export interface PackedQkvOptions {
  /** Biases of the three, [out] each. */
  bias?: { q: Tensor1D; k: Tensor1D; v: Tensor1D };
  impl?: Implementation;
}

type PackedQkvInputs = { x: Tensor; q: Tensor; k: Tensor; v: Tensor; bq?: Tensor; bk?: Tensor; bv?: Tensor };

/**
 * Queries, keys and values of self-attention in one product: [x Wq + bq, x Wk + bk, x Wv + bv] along the last axis. The
 * weights stay three tensors; a native kernel keeps them packed as one matrix, and the three share that memory.
 *
 * @param x [..., in] float32
 * @param weights q, k and v, each [in, out]
 * @returns [..., 3 * out]
 * @throws InvalidArgumentError when the sizes do not fit
 */
export function packedQkv(
  x: Tensor,
  weights: { q: Tensor2D; k: Tensor2D; v: Tensor2D },
  options: PackedQkvOptions = {},
): Tensor {
  const { bias, impl } = options;
  const features = x.shape[x.rank - 1]!;
  for (const [name, weight] of Object.entries(weights)) {
    if (weight.shape[0] !== features || weight.shape[1] !== weights.q.shape[1]) {
      throw new InvalidArgumentError(
        `[packedQkv] the weight of ${name} needs shape [${features}, ${weights.q.shape[1]}], got [${weight.shape}]`,
      );
    }
  }
  return runFused<PackedQkvInputs>(
    {
      kernel: 'PackedQkv',
      inputs: { x, ...weights, ...(bias && { bq: bias.q, bk: bias.k, bv: bias.v }) },
      attrs: {},
      composed: ({ x: tokens, q, k, v, bq, bk, bv }) =>
        tf.concat(
          [
            [q, bq],
            [k, bk],
            [v, bv],
          ].map(([weight, b]) =>
            linear(tokens, weight as Tensor2D, { bias: b as Tensor1D | undefined, impl: 'composed' }),
          ),
          -1,
        ),
    },
    impl,
  );
}
