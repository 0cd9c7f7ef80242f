import type { Tensor, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { batchMatMul } from '../batch_mat_mul.js';
import {
  type AttentionBlocks,
  blocksOf,
  concatTokens,
  constant,
  finiteOrZero,
  type HeadOperands,
  ranges,
  replace,
  scores,
  tokens,
  transposed,
} from './blocks.js';

/** What the keys seen so far give; `shift` is any number near their largest score. */
interface Running {
  /** Sum of exp(score - shift) v, [B, heads, rows, dv]. */
  out: Tensor;
  /** [B, heads, rows, 1] */
  shift: Tensor;
  /** Sum of exp(score - shift), [B, heads, rows, 1]. */
  sum: Tensor;
}

/** One block by tfjs's softmax, a single fast kernel on most backends: the shift is then the block's log-sum-exp. */
function softmaxBlock(s: Tensor4D, v: Tensor4D): Running {
  const max = tf.max(s, -1, true);
  const p = replace(s, (x) => tf.softmax(x));
  // the weight of the largest score is 1 / sum(exp(score - max))
  const shift = tf.sub(max, tf.log(tf.max(p, -1, true)));
  return { out: batchMatMul(p, v), shift, sum: tf.onesLike(shift) };
}

/** One block by plain ops, for scores that may be -Infinity and for the tape, on which the shift is a constant. */
function shiftedBlock(s: Tensor4D, v: Tensor4D): Running {
  const max = constant(() => tf.max(s, -1, true));
  const finite = constant(() => finiteOrZero(max));
  const p = replace(
    replace(s, (x) => tf.sub(x, finite)),
    tf.exp,
  );
  return { out: batchMatMul(p, v), shift: max, sum: tf.sum(p, -1, true) };
}

function merge(a: Running, b: Running): Running {
  const shift = constant(() => tf.maximum(a.shift, b.shift));
  const finite = constant(() => finiteOrZero(shift));
  const [factorA, factorB] = [a, b].map((x) => constant(() => tf.exp(tf.sub(x.shift, finite)))) as [Tensor, Tensor];
  return {
    out: tf.add(tf.mul(a.out, factorA), tf.mul(b.out, factorB)),
    shift,
    sum: tf.add(tf.mul(a.sum, factorA), tf.mul(b.sum, factorB)),
  };
}

/** Output and log-sum-exp of the rows: a row whose keys are all hidden has sum 0 and gives 0 and -Infinity. */
function finish({ out, shift, sum }: Running): [Tensor4D, Tensor3D] {
  const empty = constant(() => tf.equal(sum, 0));
  const safe = tf.where(empty, tf.onesLike(sum), sum);
  return [tf.div(out, safe) as Tensor4D, tf.squeeze(tf.add(shift, tf.log(safe)), [3]) as Tensor3D];
}

/**
 * Attention in blocks of queries and keys with a running log-sum-exp.
 *
 * @param taped the gradient is to come from the tape, which keeps every block of weights
 * @returns output [B, heads, Nq, dv] and log-sum-exp of the scores [B, heads, Nq]
 */
export function attentionForward(inputs: HeadOperands, blocks?: AttentionBlocks, taped = false): [Tensor4D, Tensor3D] {
  const { q, k, v, bias, scale } = inputs;
  const block = blocks ?? blocksOf(q, k);
  const keyRanges = ranges(k.shape[2], block.key);
  const compute = bias || taped ? shiftedBlock : softmaxBlock;
  return tf.tidy(() => {
    const scaled = tf.mul(q, scale) as Tensor4D;
    const kT = keyRanges.map((columns) => transposed(tokens(k, columns)));
    const outs: Tensor4D[] = [];
    const sums: Tensor3D[] = [];
    for (const rows of ranges(q.shape[2], block.query)) {
      const [out, lse] = tf.tidy(() => {
        const qBlock = tokens(scaled, rows);
        let state: Running | null = null;
        keyRanges.forEach((columns, j) => {
          const previous: Running | null = state;
          state = tf.tidy(() => {
            const next = compute(scores(qBlock, kT[j]!, bias, rows, columns), tokens(v, columns));
            return (previous ? merge(previous, next) : next) as never;
          });
          if (previous) {
            tf.dispose(previous as unknown as tf.TensorContainer);
          }
        });
        return finish(state!);
      });
      outs.push(out);
      sums.push(lse);
    }
    return [concatTokens(outs), concatTokens(sums)];
  });
}
