import type { Tensor, Tensor1D, Tensor2D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { type Implementation, runFused } from './fused.js';

export interface TimestepEmbeddingOptions {
  /** Size of the embedding. */
  dim: number;
  /** Cosines first. */
  flipSinToCos?: boolean;
  downscaleFreqShift?: number;
  scale?: number;
  maxPeriod?: number;
  impl?: Implementation;
}

/**
 * Sinusoidal timestep embeddings (Vaswani et al. 2017; diffusers/models/embeddings.py get_timestep_embedding).
 *
 * @param timesteps [B] float32, fractions allowed
 * @returns [B, dim]
 */
export function timestepEmbedding(timesteps: Tensor1D, options: TimestepEmbeddingOptions): Tensor2D {
  const { dim, flipSinToCos = false, downscaleFreqShift = 1, scale = 1, maxPeriod = 10000, impl } = options;
  const composed = ({ timesteps: t }: { timesteps: Tensor }) => {
    const half = Math.floor(dim / 2);
    const exponents = Float32Array.from({ length: half }, (_, i) =>
      Math.fround(Math.fround(-Math.log(maxPeriod) * i) / (half - downscaleFreqShift)),
    );
    const frequencies = tf.tensor2d(exponents.map(Math.exp), [1, half]);
    const angles = tf.mul(tf.mul(tf.reshape(t, [-1, 1]), frequencies), scale);
    const waves = flipSinToCos ? [tf.cos(angles), tf.sin(angles)] : [tf.sin(angles), tf.cos(angles)];
    if (dim % 2 === 1) {
      waves.push(tf.zeros([t.size, 1]));
    }
    return tf.concat(waves, 1);
  };
  return runFused(
    {
      kernel: 'TimestepEmbedding',
      inputs: { timesteps },
      attrs: { dim, flipSinToCos, downscaleFreqShift, scale, maxPeriod },
      composed,
    },
    impl,
  ) as Tensor2D;
}
