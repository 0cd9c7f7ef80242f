import type { Tensor, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { traits } from '../../backends/traits.js';
import { attentionBackward } from './backward.js';
import type { AttentionBlocks, HeadOperands } from './blocks.js';
import { attentionForward } from './forward.js';

/**
 * Whether heads are computed one after another: on backends where only products of single matrices are fast.
 * A bias, which may be shared by heads, keeps them together.
 */
export function computesByHead(hasBias = false): boolean {
  return traits().oneMatrixAtATime && !hasBias;
}

/** One head of [B, heads, N, ...] as [1, 1, N, ...]. */
function head<T extends Tensor>(x: T, b: number, h: number): T {
  const rest = x.shape.slice(2);
  return tf.slice(x, [b, h, ...rest.map(() => 0)], [1, 1, ...rest]) as T;
}

/** Calls f with the numbers of every head and puts its results, [1, 1, N, ...] each, together again. */
function forEachHead(batch: number, heads: number, f: (b: number, h: number) => Tensor[]): Tensor[] {
  const results = Array.from({ length: batch * heads }, (_, i) => tf.tidy(() => f(Math.floor(i / heads), i % heads)));
  return results[0]!.map((first, i) => {
    const all = tf.concat(
      results.map((result) => result[i]!),
      0,
    );
    tf.dispose(results.map((result) => result[i]!));
    return tf.reshape(all, [batch, heads, ...first.shape.slice(2)]);
  });
}

function inputsOfHead({ q, k, v, scale }: HeadOperands, b: number, h: number): HeadOperands {
  return { q: head(q, b, h), k: head(k, b, h), v: head(v, b, h), scale };
}

/** attentionForward, head by head. */
export function forwardByHead(inputs: HeadOperands, blocks?: AttentionBlocks): [Tensor4D, Tensor3D] {
  const [batch, heads] = inputs.q.shape;
  return tf.tidy(
    () =>
      forEachHead(batch, heads, (b, h) => attentionForward(inputsOfHead(inputs, b, h), blocks)) as [Tensor4D, Tensor3D],
  );
}

/** attentionBackward, head by head. */
export function backwardByHead(
  dy: Tensor4D,
  inputs: HeadOperands,
  out: Tensor4D,
  lse: Tensor3D,
  blocks?: AttentionBlocks,
): [Tensor4D, Tensor4D, Tensor4D] {
  const [batch, heads] = inputs.q.shape;
  return tf.tidy(
    () =>
      forEachHead(batch, heads, (b, h) =>
        attentionBackward(head(dy, b, h), inputsOfHead(inputs, b, h), head(out, b, h), head(lse, b, h), blocks),
      ) as [Tensor4D, Tensor4D, Tensor4D],
  );
}
