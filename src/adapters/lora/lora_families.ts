import type { Tensor, Tensor2D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';

/** Something of each of a layer's tensors in a LoRA file, by `LoraKey.part`. */
export type Parts<T> = Readonly<Record<string, T | undefined>>;

/** A way to write the change of a weight. */
export interface LoraFamily {
  /** The tensors without which there is no change. */
  readonly needs: readonly string[];
  /** The tensors that it can have besides. */
  readonly takes: readonly string[];
  /**
   * Size of the change as a matrix, [out, in * height * width].
   *
   * @returns null for tensors that do not go together
   */
  size(shapes: Parts<readonly number[]>): readonly [number, number] | null;
  /** Alpha is divided by it; null: there is no alpha. */
  rank(shapes: Parts<readonly number[]>): number | null;
  /** The change, its numbers in the order of the weight's. */
  delta(tensors: Parts<Tensor>): Tensor;
}

const product = (sizes: readonly number[]) => sizes.reduce((a, b) => a * b, 1);
/** [n, rest] of a shape. */
const matrixSize = ([first, ...rest]: readonly number[]): [number, number] => [first!, product(rest)];
const matrix = (x: Tensor): Tensor2D => tf.reshape(x, matrixSize(x.shape)) as Tensor2D;
const kernelOf = (core: readonly number[]) => product(core.slice(2));

/**
 * A kernel [out, in, k] from its Tucker decomposition: sum over i, j of up[out, i] core[i, j, k] down[j, in].
 *
 * @param core [i, j, height, width]
 */
function tucker(core: Tensor, up: Tensor2D, down: Tensor2D): Tensor {
  const [i, j] = core.shape as [number, number];
  const [out, inputs, k] = [up.shape[0], down.shape[1], kernelOf(core.shape)];
  const left = tf.reshape(tf.matMul(up, tf.reshape(core, [i, j * k]) as Tensor2D), [out, j, k]);
  const kernels = tf.reshape(tf.transpose(left, [0, 2, 1]), [out * k, j]) as Tensor2D;
  return tf.transpose(tf.reshape(tf.matMul(kernels, down), [out, k, inputs]), [0, 2, 1]);
}

/** Size of `tucker`'s kernel as a matrix. */
function tuckerSize(core: readonly number[], up: readonly [number, number], down: readonly [number, number]) {
  const fits = up[1] === core[0] && down[0] === core[1];
  return fits ? ([up[0], down[1] * kernelOf(core)] as const) : null;
}

const transposed = ([a, b]: readonly [number, number]): [number, number] => [b, a];

/** Size of a b, or of the kernel whose core is between them. */
function productSize(a: readonly number[], b: readonly number[], core: readonly number[] | undefined) {
  const [left, right] = [matrixSize(a), matrixSize(b)];
  if (core) {
    return tuckerSize(core, transposed(left), right);
  }
  return left[1] === right[0] ? ([left[0], right[1]] as const) : null;
}

/** a b, or the kernel whose core is between them; LyCORIS writes a the other way round then. */
function productOf(a: Tensor, b: Tensor, core: Tensor | undefined): Tensor {
  return core ? tucker(core, tf.transpose(matrix(a)), matrix(b)) : tf.matMul(matrix(a), matrix(b));
}

/** up down (Hu et al. 2021), or LoCon's up mid down. */
const LORA: LoraFamily = {
  needs: ['down', 'up'],
  takes: ['mid', 'alpha', 'magnitude', 'up_bias'],
  size({ down, up, mid }) {
    const [left, right] = [matrixSize(up!), matrixSize(down!)];
    return mid ? tuckerSize(mid, left, right) : productSize(up!, down!, undefined);
  },
  rank: ({ down }) => down![0]!,
  delta: ({ down, up, mid }) => (mid ? tucker(mid, matrix(up!), matrix(down!)) : tf.matMul(matrix(up!), matrix(down!))),
};

/** (w1_a w1_b) * (w2_a w2_b), number by number (Hyeon-Woo et al. 2021; LyCORIS, modules/loha.py). */
const LOHA: LoraFamily = {
  needs: ['hada_w1_a', 'hada_w1_b', 'hada_w2_a', 'hada_w2_b'],
  takes: ['hada_t1', 'hada_t2', 'alpha'],
  size(s) {
    const first = productSize(s.hada_w1_a!, s.hada_w1_b!, s.hada_t1);
    const second = productSize(s.hada_w2_a!, s.hada_w2_b!, s.hada_t2);
    return `${first}` === `${second}` ? first : null;
  },
  rank: (s) => s.hada_w1_b![0]!,
  delta: (t) =>
    tf.mul(productOf(t.hada_w1_a!, t.hada_w1_b!, t.hada_t1), productOf(t.hada_w2_a!, t.hada_w2_b!, t.hada_t2)),
};

/** Kronecker's product w1 (x) w2, each whole or w_a w_b (LyCORIS, modules/lokr.py). */
const LOKR: LoraFamily = {
  needs: [],
  takes: ['lokr_w1', 'lokr_w1_a', 'lokr_w1_b', 'lokr_w2', 'lokr_w2_a', 'lokr_w2_b', 'lokr_t2', 'alpha'],
  size(s) {
    const factor = (
      whole?: readonly number[],
      a?: readonly number[],
      b?: readonly number[],
      core?: readonly number[],
    ) => (whole ? matrixSize(whole) : a && b ? productSize(a, b, core) : null);
    const first = factor(s.lokr_w1, s.lokr_w1_a, s.lokr_w1_b);
    const second = factor(s.lokr_w2, s.lokr_w2_a, s.lokr_w2_b, s.lokr_t2);
    return first && second && [first[0] * second[0], first[1] * second[1]];
  },
  rank: (s) => (s.lokr_w2_b ?? s.lokr_w1_b)?.[0] ?? null,
  delta(t) {
    const first = t.lokr_w1 ?? productOf(t.lokr_w1_a!, t.lokr_w1_b!, undefined);
    const second = t.lokr_w2 ?? productOf(t.lokr_w2_a!, t.lokr_w2_b!, t.lokr_t2);
    const [[a, b], [c, d]] = [matrixSize(first.shape), matrixSize(second.shape)];
    const products = tf.mul(tf.reshape(first, [a, 1, b, 1]), tf.reshape(second, [1, c, 1, d]));
    return tf.reshape(products, [a * c, b * d]);
  },
};

/** The change itself, of a layer (LyCORIS, modules/full.py) or of a normalisation (modules/norms.py). */
const whole = (weight: string, bias: string): LoraFamily => ({
  needs: [weight],
  takes: [bias, 'alpha'],
  size: (shapes) => matrixSize(shapes[weight]!),
  rank: () => null,
  delta: (tensors) => tensors[weight]!,
});

/** The family whose tensors these are; undefined when tensors are missing or do not belong together. */
export function familyOf(parts: readonly string[]): LoraFamily | undefined {
  const isKronecker = parts.some((part) => part.startsWith('lokr_'));
  const families = isKronecker ? [LOKR] : [LORA, LOHA, whole('diff', 'diff_b'), whole('w_norm', 'b_norm')];
  return families.find(
    ({ needs, takes }) =>
      needs.every((part) => parts.includes(part)) &&
      parts.every((part) => needs.includes(part) || takes.includes(part)),
  );
}
