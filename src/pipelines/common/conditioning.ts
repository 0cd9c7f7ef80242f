import type { Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { KeyValueCache } from '../../attention/index.js';
import { InvalidArgumentError } from '../../errors.js';
import { describe } from './pipeline_utils.js';

/** Text embeddings with the keys and values that the UNet's layers make of them, computed once for all steps. */
class Conditioning {
  readonly cache = new KeyValueCache();

  constructor(readonly embeds: Tensor3D) {}

  dispose(): void {
    this.cache.dispose();
    this.embeds.dispose();
  }
}

/** The prompts of a run: both halves of guidance, and the conditional half alone for steps that leave the other out. */
export class PromptState {
  private both: Conditioning;
  private conditionalHalf: Conditioning | null = null;

  /** @param embeds [2B or B, tokens, D], which stays the caller's */
  constructor(embeds: Tensor3D) {
    this.both = new Conditioning(tf.keep(tf.clone(embeds)));
  }

  get all(): Conditioning {
    return this.both;
  }

  get conditional(): Conditioning {
    if (!this.conditionalHalf) {
      const [rows, tokens, size] = this.both.embeds.shape;
      const half = tf.slice(this.both.embeds, [rows / 2, 0, 0], [rows / 2, tokens, size]);
      this.conditionalHalf = new Conditioning(tf.keep(half));
    }
    return this.conditionalHalf;
  }

  /**
   * Goes on with other embeddings, which it takes over.
   *
   * @throws InvalidArgumentError unless they are a tensor of the same shape
   */
  replace(embeds: Tensor3D): void {
    const { shape } = this.both.embeds;
    if (!(embeds instanceof tf.Tensor) || embeds.isDisposed || `${embeds.shape}` !== `${shape}`) {
      const got = describe(embeds);
      tf.dispose(embeds);
      throw new InvalidArgumentError(
        `[StableDiffusionPipeline] promptEmbeds of the callback must be a tensor [${shape}], got ${got}`,
      );
    }
    this.dispose();
    this.both = new Conditioning(tf.keep(embeds));
  }

  dispose(): void {
    this.both.dispose();
    this.conditionalHalf?.dispose();
    this.conditionalHalf = null;
  }
}
