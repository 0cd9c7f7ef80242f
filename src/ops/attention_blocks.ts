import type { Tensor, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';

/** Block sizes in tokens. */
export interface AttentionBlocks {
  query: number;
  key: number;
}

export interface AttentionInputs {
  /** [B, heads, Nq, d] */
  q: Tensor4D;
  /** [B, heads, Nk, d] */
  k: Tensor4D;
  /** [B, heads, Nk, dv] */
  v: Tensor4D;
  /** Every axis 1 or that of [B, heads, Nq, Nk]. */
  bias?: Tensor4D;
  scale: number;
}

/** Numbers in one block of scores; two or three such blocks are alive at a time. */
const SCORES_PER_BLOCK = 1 << 20;
const KEYS_PER_BLOCK = 1024;

/** A block of scores keeps a bounded number of elements whatever the number of tokens. */
export function defaultBlocks(shape: { batch: number; heads: number; queries: number; keys: number }): AttentionBlocks {
  const { batch, heads, queries, keys } = shape;
  const key = Math.min(keys, KEYS_PER_BLOCK);
  const query = Math.max(16, Math.floor(SCORES_PER_BLOCK / (batch * heads * key)));
  return { query: Math.min(query, queries), key };
}

function blocksOf(q: Tensor4D, k: Tensor4D): AttentionBlocks {
  const [batch, heads, queries] = q.shape;
  return defaultBlocks({ batch, heads, queries, keys: k.shape[2] });
}

/** Tokens [begin, begin + size). */
export interface Range {
  begin: number;
  size: number;
}

function ranges(total: number, block: number): Range[] {
  return Array.from({ length: Math.ceil(total / block) }, (_, i) => ({
    begin: i * block,
    size: Math.min(block, total - i * block),
  }));
}

/** Tokens [begin, begin + size) of [B, heads, N, ...]. */
function tokens<T extends Tensor>(x: T, { begin, size }: Range): T {
  if (begin === 0 && size === x.shape[2]) {
    return x;
  }
  const rest = x.rank === 4 ? 1 : 0;
  const begins = [0, 0, begin, ...new Array<number>(rest).fill(0)];
  return tf.slice(x, begins, [-1, -1, size, ...new Array<number>(rest).fill(-1)]) as T;
}

/** The part of a bias that belongs to some queries and keys; axes of size 1 stay. */
export function biasBlock(bias: Tensor4D, rows: Range, columns: Range): Tensor4D {
  const along = (axis: number, range: Range) => (bias.shape[axis] === 1 ? { begin: 0, size: 1 } : range);
  const [r, c] = [along(2, rows), along(3, columns)];
  return tf.slice(bias, [0, 0, r.begin, c.begin], [-1, -1, r.size, c.size]);
}

// Backends multiply plain matrices fastest, so keys are transposed once and scores never need a transposed operand.
const transposed = (x: Tensor4D) => tf.transpose(x, [0, 1, 3, 2]) as Tensor4D;

/** x is not needed any more once f has used it, so that at most two blocks of scores exist at a time. */
function replace(x: Tensor, f: (x: Tensor) => Tensor): Tensor4D {
  const y = f(x);
  x.dispose();
  return y as Tensor4D;
}

/** Biased scores of one block of scaled queries: [B, heads, rows, columns]. */
function scores(q: Tensor4D, kT: Tensor4D, bias: Tensor4D | undefined, rows: Range, columns: Range): Tensor4D {
  const s = tf.matMul(q, kT) as Tensor4D;
  return bias ? replace(s, (x) => tf.add(x, biasBlock(bias, rows, columns))) : s;
}

/** The result does not depend on these numbers (they shift scores and are taken out again): no gradient flows here. */
function constant(f: () => Tensor): Tensor {
  return tf.customGrad(() => ({ value: f(), gradFunc: () => [] }))();
}

/** Gives a bias all four axes, which the blocks and kernels index. */
export function bias4d(bias: Tensor): Tensor4D {
  const leading: number[] = new Array(4 - bias.rank).fill(1);
  return tf.reshape(bias, leading.concat(bias.shape) as Tensor4D['shape']);
}

/** -Infinity (no key seen yet, or all hidden) as 0, so that differences with it stay defined. */
function finiteOrZero(x: Tensor): Tensor {
  return tf.where(tf.equal(x, Number.NEGATIVE_INFINITY), tf.zerosLike(x), x);
}

interface Running {
  /** Unnormalised output [B, heads, rows, dv]. */
  out: Tensor;
  /** Maximum score so far [B, heads, rows, 1]. */
  max: Tensor;
  /** Sum of exp(score - max) [B, heads, rows, 1]. */
  sum: Tensor;
}

function addBlock(state: Running | null, s: Tensor4D, v: Tensor4D): Running {
  const max = constant(() => {
    const blockMax = tf.max(s, -1, true);
    return state ? tf.maximum(state.max, blockMax) : blockMax;
  });
  const shift = constant(() => finiteOrZero(max));
  const p = replace(
    replace(s, (x) => tf.sub(x, shift)),
    tf.exp,
  );
  const sum = tf.sum(p, -1, true);
  const out = tf.matMul(p, v);
  if (!state) {
    return { out, max, sum };
  }
  const correction = constant(() => tf.exp(tf.sub(state.max, shift)));
  return {
    out: tf.add(tf.mul(state.out, correction), out),
    max,
    sum: tf.add(tf.mul(state.sum, correction), sum),
  };
}

/** Output [B, heads, Nq, dv] and log-sum-exp of the scores [B, heads, Nq]. */
export function attentionForward(inputs: AttentionInputs, blocks?: AttentionBlocks): [Tensor4D, Tensor3D] {
  const { q, k, v, bias, scale } = inputs;
  const block = blocks ?? blocksOf(q, k);
  const keyRanges = ranges(k.shape[2], block.key);
  return tf.tidy(() => {
    const scaled = tf.mul(q, scale) as Tensor4D;
    const kT = keyRanges.map((r) => transposed(tokens(k, r)));
    const outs: Tensor4D[] = [];
    const sums: Tensor3D[] = [];
    for (const rows of ranges(q.shape[2], block.query)) {
      const [out, lse] = tf.tidy(() => {
        const qBlock = tokens(scaled, rows);
        let state: Running | null = null;
        keyRanges.forEach((columns, j) => {
          const previous: Running | null = state;
          state = tf.tidy(
            () => addBlock(previous, scores(qBlock, kT[j]!, bias, rows, columns), tokens(v, columns)) as never,
          );
          if (previous) {
            tf.dispose(previous as unknown as tf.TensorContainer);
          }
        });
        const { out, max, sum } = state! as Running;
        // a row whose keys are all hidden has sum 0: it gives 0 and a log-sum-exp of -Infinity
        const empty = constant(() => tf.equal(sum, 0));
        const safe = tf.where(empty, tf.onesLike(sum), sum);
        return [tf.div(out, safe), tf.squeeze(tf.add(max, tf.log(safe)), [3])] as [Tensor4D, Tensor3D];
      });
      outs.push(out);
      sums.push(lse);
    }
    return [concatTokens(outs), concatTokens(sums)];
  });
}

function concatTokens<T extends Tensor>(parts: T[]): T {
  return parts.length === 1 ? parts[0]! : (tf.concat(parts, 2) as T);
}

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

function backwardRow(dy: Tensor4D, inputs: AttentionInputs, out: Tensor4D, lse: Tensor3D, rows: Range): BackwardRow {
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
  inputs: AttentionInputs,
  columns: Range,
): BlockGradient {
  const p = replace(
    replace(scores(row.q, kT, inputs.bias, row.rows, columns), (s) => tf.sub(s, row.lse)),
    tf.exp,
  );
  const ds = replace(
    replace(tf.matMul(row.dy, vT), (x) => tf.sub(x, row.delta)),
    (x) => tf.mul(p, x),
  );
  return { p, ds };
}

/** Gradients [dq, dk, dv] with respect to q, k and v, for dy of shape [B, heads, Nq, dv]. */
export function attentionBackward(
  dy: Tensor4D,
  inputs: AttentionInputs,
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
            const part = tf.mul(tf.matMul(ds, keys[j]!), scale);
            return [
              sum ? tf.add(sum, part) : part,
              tf.add(dk[j]!, tf.matMul(transposed(ds), row.q)),
              tf.add(dv[j]!, tf.matMul(transposed(p), row.dy)),
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
  inputs: AttentionInputs,
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
