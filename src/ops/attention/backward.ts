import type { Tensor, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { batchMatMul } from '../batch_mat_mul.js';
import {
  type AttentionBlocks,
  blocksOf,
  concatTokens,
  finiteOrZero,
  type HeadOperands,
  type Range,
  ranges,
  replace,
  scores,
  tokens,
  transposed,
} from './blocks.js';

interface BlockGradient {
  /** Weights exp(score - lse) [B, heads, rows, columns]. */
  p: Tensor4D;
  /** Gradient of the scores, like p. */
  ds: Tensor4D;
}

interface BackwardRow {
  rows: Range;
  /** Scaled queries. */
  q: Tensor4D;
  dy: Tensor4D;
  lse: Tensor;
  /** sum(dy * out) [B, heads, rows, 1] */
  delta: Tensor;
}

function backwardRow(dy: Tensor4D, inputs: HeadOperands, out: Tensor4D, lse: Tensor3D, rows: Range): BackwardRow {
  const dyBlock = tokens(dy, rows);
  return {
    rows,
    q: tf.mul(tokens(inputs.q, rows), inputs.scale) as Tensor4D,
    dy: dyBlock,
    lse: finiteOrZero(tf.expandDims(tokens(lse, rows), 3)),
    delta: tf.sum(tf.mul(dyBlock, tokens(out, rows)), -1, true),
  };
}

function blockGradient(
  row: BackwardRow,
  kT: Tensor4D,
  vT: Tensor4D,
  inputs: HeadOperands,
  columns: Range,
): BlockGradient {
  const p = replace(
    replace(scores(row.q, kT, inputs.bias, row.rows, columns), (s) => tf.sub(s, row.lse)),
    tf.exp,
  );
  const ds = replace(
    replace(batchMatMul(row.dy, vT), (x) => tf.sub(x, row.delta)),
    (x) => tf.mul(p, x),
  );
  return { p, ds };
}

/** Gradients [dq, dk, dv] with respect to q, k and v, for dy of shape [B, heads, Nq, dv]. */
export function attentionBackward(
  dy: Tensor4D,
  inputs: HeadOperands,
  out: Tensor4D,
  lse: Tensor3D,
  blocks?: AttentionBlocks,
): [Tensor4D, Tensor4D, Tensor4D] {
  const { q, k, v, scale } = inputs;
  const block = blocks ?? blocksOf(q, k);
  const keyRanges = ranges(k.shape[2], block.key);
  return tf.tidy(() => {
    const keys = keyRanges.map((columns) => tokens(k, columns));
    const kT = keys.map(transposed);
    const vT = keyRanges.map((columns) => transposed(tokens(v, columns)));
    const dk = keys.map((x) => tf.keep(tf.zerosLike(x)));
    const dv = keyRanges.map((columns) => tf.keep(tf.zerosLike(tokens(v, columns))));
    const dq: Tensor4D[] = [];
    for (const rows of ranges(q.shape[2], block.query)) {
      const dqBlock = tf.tidy(() => {
        const row = backwardRow(dy, inputs, out, lse, rows);
        let sum: Tensor | null = null;
        keyRanges.forEach((columns, j) => {
          const [dqPart, dkNext, dvNext] = tf.tidy(() => {
            const { p, ds } = blockGradient(row, kT[j]!, vT[j]!, inputs, columns);
            const part = tf.mul(batchMatMul(ds, keys[j]!), scale);
            return [
              sum ? tf.add(sum, part) : part,
              tf.add(dk[j]!, batchMatMul(transposed(ds), row.q)),
              tf.add(dv[j]!, batchMatMul(transposed(p), row.dy)),
            ] as [Tensor, Tensor, Tensor];
          });
          tf.dispose([dk[j]!, dv[j]!, ...(sum ? [sum as Tensor] : [])]);
          [sum, dk[j], dv[j]] = [dqPart, tf.keep(dkNext) as Tensor4D, tf.keep(dvNext) as Tensor4D];
        });
        return sum! as Tensor4D;
      });
      dq.push(dqBlock);
    }
    // the running sums are kept, past the tidy of their block of rows, and so are disposed of by hand
    const result = [concatTokens(dq), tf.clone(concatTokens(dk)), tf.clone(concatTokens(dv))];
    tf.dispose([...dk, ...dv]);
    return result as [Tensor4D, Tensor4D, Tensor4D];
  });
}

/** Gradient with respect to the bias, in the bias's own shape. */
export function biasGradient(
  dy: Tensor4D,
  inputs: HeadOperands,
  out: Tensor4D,
  lse: Tensor3D,
  blocks?: AttentionBlocks,
): Tensor4D {
  const { q, k, v, bias } = inputs;
  const block = blocks ?? blocksOf(q, k);
  const keyRanges = ranges(k.shape[2], block.key);
  const [batch, heads, biasRows, biasColumns] = bias!.shape;
  const sumTo = (x: Tensor, axis: number, size: number) => (size === 1 ? tf.sum(x, axis, true) : x);
  return tf.tidy(() => {
    const rowParts = ranges(q.shape[2], block.query).map((rows) =>
      tf.tidy(() => {
        const row = backwardRow(dy, inputs, out, lse, rows);
        const parts = keyRanges.map((columns) =>
          tf.tidy(() => {
            const kT = transposed(tokens(k, columns));
            const { ds } = blockGradient(row, kT, transposed(tokens(v, columns)), inputs, columns);
            const overHeads = sumTo(sumTo(ds, 0, batch), 1, heads);
            return sumTo(sumTo(overHeads, 2, biasRows), 3, biasColumns);
          }),
        );
        return biasColumns === 1 ? tf.addN(parts) : tf.concat(parts, 3);
      }),
    );
    return (biasRows === 1 ? tf.addN(rowParts) : tf.concat(rowParts, 2)) as Tensor4D;
  });
}
