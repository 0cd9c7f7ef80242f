import * as tf from '@tensorflow/tfjs-core';
import type { OptionsOf } from '../../config/fields.js';
import { invalid } from '../../utils/check.js';
import type { PredictionType } from './config.js';
import { alphasCumprod, type BetaOptions, makeBetas } from './schedule.js';
import { asList, combine, mixPerItem, SchedulerMixin } from './scheduling_utils.js';
import { thresholdSample } from './thresholding.js';

/** What the configurations of these schedulers have, or may have. */
export interface AlphaConfig extends BetaOptions {
  readonly prediction_type: PredictionType;
  readonly set_alpha_to_one?: boolean;
  readonly thresholding?: boolean;
  readonly dynamic_thresholding_ratio?: number;
  readonly sample_max_value?: number;
  readonly clip_sample?: boolean;
  readonly clip_sample_range?: number;
}

/** Schedulers that work on cumulated alphas at integer training steps (DDIM, DDPM, PNDM, LCM, TCD). */
export abstract class AlphaScheduler<C extends AlphaConfig> extends SchedulerMixin<C> {
  /** Share of signal variance at each training step, float32 values. */
  readonly alphasCumprod: readonly number[];
  /** The same for the step after the last one. */
  protected readonly finalAlphaCumprod: number;

  constructor(options?: OptionsOf<C>) {
    super(options);
    this.alphasCumprod = alphasCumprod(makeBetas(this.config));
    this.finalAlphaCumprod = this.config.set_alpha_to_one === false ? this.alphasCumprod[0]! : 1;
    this.timesteps = this.alphasCumprod.map((_, i, all) => all.length - 1 - i);
  }

  get initNoiseSigma(): number {
    return 1;
  }

  /** sqrt(a) original + sqrt(1 - a) noise */
  addNoise(original: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    const alphas = asList(timesteps).map((t) => this.alphaAt(t));
    return mixPerItem(alphas.map(Math.sqrt), original, alphas.map(noiseShare), noise);
  }

  /** The velocity that a v_prediction model is trained to give (https://arxiv.org/abs/2202.00512, appendix D). */
  getVelocity(sample: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    return velocity(
      asList(timesteps).map((t) => this.alphaAt(t)),
      sample,
      noise,
    );
  }

  /** Cumulated alpha of a training step; as in Python, -1 is the last one. */
  protected alphaAt(timestep: number): number {
    const alpha = this.alphasCumprod.at(timestep);
    if (alpha === undefined || !Number.isInteger(timestep)) {
      const expected = `a training step, an integer from 0 to ${this.alphasCumprod.length - 1}`;
      throw invalid(this.className, 'timestep', expected, timestep);
    }
    return alpha;
  }

  protected previousAlphaAt(timestep: number): number {
    return timestep >= 0 ? this.alphaAt(timestep) : this.finalAlphaCumprod;
  }

  /** The clean sample that the model's output stands for, before any clipping. */
  protected predictOriginal(modelOutput: tf.Tensor, sample: tf.Tensor, alpha: number): tf.Tensor {
    switch (this.config.prediction_type) {
      case 'epsilon': // x_0 = (x - sqrt(1 - a) eps) / sqrt(a)
        return tf.div(tf.sub(sample, tf.mul(noiseShare(alpha), modelOutput)), Math.sqrt(alpha));
      case 'sample':
        return tf.clone(modelOutput);
      default: // x_0 = sqrt(a) x - sqrt(1 - a) v
        return combine([Math.sqrt(alpha), sample], [-noiseShare(alpha), modelOutput]);
    }
  }

  /** The noise that the model's output stands for. */
  protected predictEpsilon(modelOutput: tf.Tensor, sample: tf.Tensor, alpha: number): tf.Tensor {
    switch (this.config.prediction_type) {
      case 'epsilon':
        return modelOutput;
      case 'sample':
        return this.epsilonOf(modelOutput, sample, alpha);
      default: // eps = sqrt(a) v + sqrt(1 - a) x
        return combine([Math.sqrt(alpha), modelOutput], [noiseShare(alpha), sample]);
    }
  }

  /** eps = (x - sqrt(a) x_0) / sqrt(1 - a) */
  protected epsilonOf(original: tf.Tensor, sample: tf.Tensor, alpha: number): tf.Tensor {
    return tf.div(tf.sub(sample, tf.mul(Math.sqrt(alpha), original)), noiseShare(alpha));
  }

  /** The clean sample, thresholded or clipped as the configuration says. */
  protected thresholdOrClip(original: tf.Tensor): tf.Tensor {
    const { thresholding, dynamic_thresholding_ratio, sample_max_value, clip_sample, clip_sample_range } = this.config;
    if (thresholding) {
      return thresholdSample(original, dynamic_thresholding_ratio!, sample_max_value!);
    }
    return clip_sample ? tf.clipByValue(original, -clip_sample_range!, clip_sample_range!) : original;
  }
}

/** sqrt(1 - a) */
export function noiseShare(alpha: number): number {
  return Math.sqrt(1 - alpha);
}

/** v = sqrt(a) noise - sqrt(1 - a) sample */
export function velocity(alphas: readonly number[], sample: tf.Tensor, noise: tf.Tensor): tf.Tensor {
  const shares = alphas.map((alpha) => -noiseShare(alpha));
  return mixPerItem(alphas.map(Math.sqrt), noise, shares, sample);
}
