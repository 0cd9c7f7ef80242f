import type { Tensor, Tensor2D, Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { batchMatMul } from '../../ops/batch_mat_mul.js';

/** Scores of sources against destinations that exist at a time. */
const SCORES_AT_A_TIME = 1 << 22;

interface Similarity {
  /** Of each source, the cosine similarity with its nearest destination, [B * sources]. */
  best: ArrayLike<number>;
  /** That destination's number, [B * sources]. */
  nearest: ArrayLike<number>;
}

/** Finds each source's nearest destination by cosine similarity, without the whole matrix of scores. */
function nearestDestinations(x: Tensor3D, sources: number[], destinations: number[]): Similarity {
  const [best, nearest] = tf.tidy(() => {
    const length = tf.norm(x, 'euclidean', -1, true);
    // a token of zeros is similar to none instead of giving NaN
    const unit = tf.div(x, tf.maximum(length, 1e-12)) as Tensor3D;
    const to = tf.transpose(tf.gather(unit, tf.tensor1d(destinations, 'int32'), 1), [0, 2, 1]);
    const rows = Math.max(1, Math.floor(SCORES_AT_A_TIME / (x.shape[0] * destinations.length)));
    const parts: { max: Tensor; argMax: Tensor }[] = [];
    for (let begin = 0; begin < sources.length; begin += rows) {
      const some = tf.tensor1d(sources.slice(begin, begin + rows), 'int32');
      parts.push(
        tf.tidy(() => {
          const scores = batchMatMul(tf.gather(unit, some, 1), to);
          return { max: tf.max(scores, -1), argMax: tf.argMax(scores, -1) };
        }),
      );
    }
    const join = (tensors: Tensor[]) => (tensors.length === 1 ? tensors[0]! : tf.concat(tensors, 1));
    return [join(parts.map((part) => part.max)), join(parts.map((part) => part.argMax))] as [Tensor, Tensor];
  });
  const similarity = { best: best.dataSync(), nearest: nearest.dataSync() };
  tf.dispose([best, nearest]);
  return similarity;
}

/**
 * A merge of the tokens of [B, N, C]: sources are averaged with the destination that they went to. `merge` goes to fewer
 * tokens, `unmerge` gives every token that went into a mean a copy of it. Both have gradients.
 */
export class MergedTokens {
  private constructor(
    private readonly batch: number,
    private readonly tokens: number,
    private readonly merged: number,
    /** Where each token goes, as a row of [B * merged, C]; [B * N]. */
    private readonly positions: Int32Array,
    /** 1 / number of tokens in each merged one, [B * merged]. */
    private readonly shares: Float32Array,
  ) {}

  /**
   * Bipartite soft matching (Bolya et al. 2022): the `count` sources that are most similar to a destination go there.
   *
   * @param x [B, N, C], by which tokens are compared
   * @param destinations numbers of the tokens that others may go to, ascending; all others are sources
   * @param count tokens to merge away, at most all sources
   */
  static match(x: Tensor3D, destinations: number[], count: number): MergedTokens {
    const [batch, tokens] = x.shape;
    const isDestination = new Uint8Array(tokens);
    for (const token of destinations) {
      isDestination[token] = 1;
    }
    const sources = Array.from({ length: tokens }, (_, i) => i).filter((i) => !isDestination[i]);
    const gone = Math.min(count, sources.length);
    const merged = tokens - gone;
    const kept = sources.length - gone;
    const { best, nearest } = nearestDestinations(x, sources, destinations);
    const positions = new Int32Array(batch * tokens);
    const shares = new Float32Array(batch * merged);

    for (let b = 0; b < batch; b++) {
      const first = b * merged;
      const score = (source: number) => best[b * sources.length + source]!;
      const order = sources.map((_, i) => i).sort((i, j) => score(j) - score(i));
      const counts = new Uint32Array(merged).fill(1);
      // the sources that stay come first, the destinations after them
      order.slice(gone).forEach((source, i) => {
        positions[b * tokens + sources[source]!] = first + i;
      });
      destinations.forEach((token, i) => {
        positions[b * tokens + token] = first + kept + i;
      });
      for (const source of order.slice(0, gone)) {
        const position = kept + nearest[b * sources.length + source]!;
        positions[b * tokens + sources[source]!] = first + position;
        counts[position]!++;
      }
      counts.forEach((n, i) => {
        shares[first + i] = 1 / n;
      });
    }
    return new MergedTokens(batch, tokens, merged, positions, shares);
  }

  /** [B, N, C] -> [B, merged, C]. */
  merge(x: Tensor3D): Tensor3D {
    const f = tf.customGrad((y) => ({
      value: this.scaled(this.collect(y as Tensor3D)),
      gradFunc: (dy: Tensor) => this.spread(this.scaled(dy as Tensor3D)),
    }));
    return f(x) as Tensor3D;
  }

  /** [B, merged, C] -> [B, N, C]. */
  unmerge(x: Tensor3D): Tensor3D {
    const f = tf.customGrad((y) => ({
      value: this.spread(y as Tensor3D),
      gradFunc: (dy: Tensor) => this.collect(dy as Tensor3D),
    }));
    return f(x) as Tensor3D;
  }

  /** Sums the tokens that go to the same place. */
  private collect(x: Tensor3D): Tensor3D {
    const { batch, tokens, merged, positions } = this;
    const channels = x.shape[2];
    return tf.tidy(() => {
      const indices = tf.tensor2d(positions, [batch * tokens, 1], 'int32');
      const rows = tf.reshape(x, [batch * tokens, channels]) as Tensor2D;
      return tf.reshape(tf.scatterND(indices, rows, [batch * merged, channels]), [batch, merged, channels]) as Tensor3D;
    });
  }

  /** Copies each merged token to where its tokens came from. */
  private spread(x: Tensor3D): Tensor3D {
    const { batch, tokens, merged, positions } = this;
    const channels = x.shape[2];
    return tf.tidy(() => {
      const rows = tf.reshape(x, [batch * merged, channels]);
      return tf.reshape(tf.gather(rows, tf.tensor1d(positions, 'int32')), [batch, tokens, channels]) as Tensor3D;
    });
  }

  private scaled(x: Tensor3D): Tensor3D {
    return tf.tidy(() => tf.mul(x, tf.tensor3d(this.shares, [this.batch, this.merged, 1])) as Tensor3D);
  }
}
