import type { NamedTensorMap, Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { useKernel } from '../fused.js';
import { withSavedOutputs } from '../saved_outputs.js';
import { biasGradient } from './backward.js';
import { bias4d } from './blocks.js';
import { splitHeads } from './heads.js';
import { type MemoryEfficientAttentionOptions, memoryEfficientAttentionTokens } from './memory_efficient_attention.js';

const KERNEL = 'MemoryEfficientAttentionPacked';
const GRADIENT_KERNEL = 'MemoryEfficientAttentionPackedGrad';

/**
 * memoryEfficientAttentionTokens of a tensor that holds q, k and v side by side, as packedQkv makes it. The kernel reads
 * the three where they lie, and its gradient is one packed tensor, too.
 *
 * @param qkv [B, N, 3 * heads * d] float32
 * @returns [B, N, heads * d]
 * @throws InvalidArgumentError when the channels are not three times the heads
 * @throws BackendError with impl 'native' on a backend without the kernel
 */
export function memoryEfficientAttentionPacked(
  qkv: Tensor3D,
  heads: number,
  options: MemoryEfficientAttentionOptions = {},
): Tensor3D {
  const channels = qkv.shape[qkv.rank - 1]!;
  if (qkv.rank !== 3 || channels % (3 * heads) !== 0) {
    throw new InvalidArgumentError(
      `[memoryEfficientAttentionPacked] expects [B, N, 3 * heads * d] with ${heads} heads, got [${qkv.shape}]`,
    );
  }
  const { bias, impl = 'auto', scale = 1 / Math.sqrt(channels / (3 * heads)) } = options;
  if (!useKernel(KERNEL, impl)) {
    return tf.tidy(() => {
      const [q, k, v] = tf.split(qkv, 3, 2) as [Tensor3D, Tensor3D, Tensor3D];
      return memoryEfficientAttentionTokens(q, k, v, heads, { ...options, scale, impl: 'composed' });
    });
  }
  const attrs = { scale, heads };
  const named = ([x, mask]: Tensor[]) => ({ qkv: x!, ...(mask ? { bias: mask } : {}) }) as NamedTensorMap;
  return withSavedOutputs(
    bias ? [qkv, bias4d(bias)] : [qkv],
    (inputs) => tf.engine().runKernel(KERNEL, named(inputs), attrs) as unknown as [Tensor, Tensor],
    (dy, inputs, out, lse) => {
      const all = { ...named(inputs), dy, out, lse } as NamedTensorMap;
      const gradient = tf.engine().runKernel(GRADIENT_KERNEL, all, attrs) as Tensor;
      if (!inputs[1]) {
        return [gradient];
      }
      const [q, k, v] = tf.split(inputs[0]!, 3, 2).map((x) => splitHeads(x as Tensor3D, heads));
      const operands = { q: q!, k: k!, v: v!, bias: inputs[1] as tf.Tensor4D, scale };
      const [dy4, out4] = [dy, out].map((x) => splitHeads(x as Tensor3D, heads));
      return [gradient, biasGradient(dy4!, operands, out4!, lse as Tensor3D)];
    },
  ) as Tensor3D;
}
