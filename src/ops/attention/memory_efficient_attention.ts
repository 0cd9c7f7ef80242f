import type { NamedTensorMap, Tensor, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { type Implementation, useKernel } from '../fused.js';
import { withSavedOutputs } from '../saved_outputs.js';
import { attentionBackward, biasGradient } from './backward.js';
import { type AttentionBlocks, bias4d, type HeadOperands } from './blocks.js';
import { backwardByHead, computesByHead, forwardByHead } from './by_head.js';
import { attentionForward } from './forward.js';
import { mergeHeads, splitHeads } from './heads.js';

const KERNEL = 'MemoryEfficientAttention';
const GRADIENT_KERNEL = 'MemoryEfficientAttentionGrad';

export interface MemoryEfficientAttentionOptions {
  /** Factor of the scores; 1 / sqrt(d) when left out. */
  scale?: number;
  /** Additive mask, broadcastable to [B, heads, Nq, Nk]; -Infinity hides a key. A row with every key hidden gives 0. */
  bias?: Tensor;
  impl?: Implementation;
  /** Block sizes of the composed form; chosen from the shapes when left out. */
  blocks?: AttentionBlocks;
}

/**
 * Exact attention softmax(scale q k^T + bias) v without the N x N matrix: blocks of queries and keys with a running
 * log-sum-exp (Rabe & Staats 2021, Dao et al. 2022). The gradient recomputes the weights from the log-sum-exp.
 *
 * @param q [B, heads, Nq, d] float32
 * @param k [B, heads, Nk, d]
 * @param v [B, heads, Nk, dv]
 * @returns [B, heads, Nq, dv]
 * @throws InvalidArgumentError when the shapes do not fit
 * @throws BackendError with impl 'native' on a backend without the kernel
 */
export function memoryEfficientAttention(
  q: Tensor4D,
  k: Tensor4D,
  v: Tensor4D,
  options: MemoryEfficientAttentionOptions = {},
): Tensor4D {
  checkShapes(q, k, v, options.bias);
  const { bias, scale = 1 / Math.sqrt(q.shape[3]), impl = 'auto', blocks } = options;
  return useKernel(KERNEL, impl)
    ? (kernelAttention({ q, k, v, bias, scale }, q.shape[1]) as Tensor4D)
    : composedAttention({ q, k, v, bias, scale }, blocks);
}

/**
 * The same on tokens: heads are slices of the channels, so that a native kernel needs no transposition.
 *
 * @param q [B, Nq, heads * d] float32
 * @param k [B, Nk, heads * d]
 * @param v [B, Nk, heads * dv]
 * @returns [B, Nq, heads * dv]
 */
export function memoryEfficientAttentionTokens(
  q: Tensor3D,
  k: Tensor3D,
  v: Tensor3D,
  heads: number,
  options: MemoryEfficientAttentionOptions = {},
): Tensor3D {
  const { bias, impl = 'auto', scale = 1 / Math.sqrt(q.shape[2] / heads) } = options;
  if (q.shape[2] % heads !== 0 || v.shape[2] % heads !== 0) {
    throw new InvalidArgumentError(
      `[memoryEfficientAttention] channels expects a multiple of ${heads} heads, got q [${q.shape}] and v [${v.shape}]`,
    );
  }
  if (useKernel(KERNEL, impl)) {
    return kernelAttention({ q, k, v, bias, scale }, heads) as Tensor3D;
  }
  return tf.tidy(() =>
    mergeHeads(
      memoryEfficientAttention(splitHeads(q, heads), splitHeads(k, heads), splitHeads(v, heads), {
        ...options,
        scale,
        impl: 'composed',
      }),
    ),
  );
}

function checkShapes(q: Tensor4D, k: Tensor4D, v: Tensor4D, bias?: Tensor): void {
  const shapes = `q [${q.shape}], k [${k.shape}], v [${v.shape}]`;
  if (q.rank !== 4 || k.rank !== 4 || v.rank !== 4) {
    throw new InvalidArgumentError(
      `[memoryEfficientAttention] expects q, k, v of shape [B, heads, N, d], got ${shapes}`,
    );
  }
  const sameBatch = [0, 1].every((axis) => q.shape[axis] === k.shape[axis] && q.shape[axis] === v.shape[axis]);
  if (!sameBatch || q.shape[3] !== k.shape[3] || k.shape[2] !== v.shape[2]) {
    throw new InvalidArgumentError(
      `[memoryEfficientAttention] expects equal batch and heads, equal d of q and k, equal length of k and v, got ${shapes}`,
    );
  }
  if (bias) {
    const full = [q.shape[0], q.shape[1], q.shape[2], k.shape[2]];
    const fits = bias.rank <= 4 && bias.shape.every((size, i) => size === 1 || size === full[4 - bias.rank + i]);
    if (!fits) {
      throw new InvalidArgumentError(
        `[memoryEfficientAttention] bias expects a shape that broadcasts to [${full}], got [${bias.shape}]`,
      );
    }
  }
}

type Operands = { q: Tensor; k: Tensor; v: Tensor; bias?: Tensor; scale: number };

const tensorsOf = ({ q, k, v, bias }: Operands) => [q, k, v, ...(bias ? [bias4d(bias)] : [])];

function kernelAttention(operands: Operands, heads: number): Tensor {
  const attrs = { scale: operands.scale, heads };
  const named = ([q, k, v, bias]: Tensor[]) => (bias ? { q, k, v, bias } : { q, k, v }) as NamedTensorMap;
  return withSavedOutputs(
    tensorsOf(operands),
    (inputs) => tf.engine().runKernel(KERNEL, named(inputs), attrs) as unknown as [Tensor, Tensor],
    (dy, inputs, out, lse) => {
      const all = { ...named(inputs), dy, out, lse } as NamedTensorMap;
      const grads = tf.engine().runKernel(GRADIENT_KERNEL, all, attrs) as Tensor[];
      if (!inputs[3]) {
        return grads;
      }
      const [q4, k4, v4, out4, dy4] = [inputs[0]!, inputs[1]!, inputs[2]!, out, dy].map((x) =>
        x.rank === 3 ? splitHeads(x as Tensor3D, heads) : (x as Tensor4D),
      );
      const blockInputs = { q: q4!, k: k4!, v: v4!, bias: inputs[3] as Tensor4D, scale: operands.scale };
      return [...grads, biasGradient(dy4!, blockInputs, out4!, lse as Tensor3D)];
    },
  );
}

function composedAttention(operands: Operands, blocks?: AttentionBlocks): Tensor4D {
  const named = ([q, k, v, bias]: Tensor[]) => ({ q, k, v, bias, scale: operands.scale }) as HeadOperands;
  const byHead = computesByHead(operands.bias !== undefined);
  return withSavedOutputs(
    tensorsOf(operands),
    (inputs) => (byHead ? forwardByHead : attentionForward)(named(inputs), blocks),
    (dy, inputs, out, lse) => {
      const grads: Tensor[] = (byHead ? backwardByHead : attentionBackward)(
        dy as Tensor4D,
        named(inputs),
        out as Tensor4D,
        lse as Tensor3D,
        blocks,
      );
      if (inputs[3]) {
        grads.push(biasGradient(dy as Tensor4D, named(inputs), out as Tensor4D, lse as Tensor3D, blocks));
      }
      return grads;
    },
  ) as Tensor4D;
}
