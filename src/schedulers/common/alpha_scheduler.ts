import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { alphasCumprod, type BetaOptions, makeBetas } from './betas.js';
import { f32, sqrt32 } from './numeric.js';
import type { Fields } from './scheduler_config.js';
import type { PredictionType } from './scheduler_fields.js';
import { asList, perItem, SchedulerMixin } from './scheduling_utils.js';
import { thresholdSample } from './thresholding.js';

interface AlphaConfig extends BetaOptions {
  prediction_type: PredictionType;
  set_alpha_to_one?: boolean;
  thresholding?: boolean;
  dynamic_thresholding_ratio?: number;
  sample_max_value?: number;
  clip_sample?: boolean;
  clip_sample_range?: number;
}

/** Schedulers that work on cumulated alphas at integer training steps (DDIM, DDPM, PNDM, LCM, TCD). */
export abstract class AlphaScheduler<F extends Fields> extends SchedulerMixin<F> {
  /** Share of signal variance at each training step, float32 values. */
  readonly alphasCumprod: readonly number[];
  /** The same for the step after the last one. */
  protected readonly finalAlphaCumprod: number;

  constructor(options: object) {
    super(options);
    const config = this.alphaConfig;
    this.alphasCumprod = alphasCumprod(makeBetas(config));
    this.finalAlphaCumprod = config.set_alpha_to_one === false ? this.alphasCumprod[0]! : 1;
    this.timesteps = this.alphasCumprod.map((_, i, all) => all.length - 1 - i);
  }

  get initNoiseSigma(): number {
    return 1;
  }

  private get alphaConfig(): AlphaConfig {
    return this.config as unknown as AlphaConfig;
  }

  addNoise(original: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    return this.mix(original, noise, timesteps, tf.add);
  }

  /** The velocity that a v_prediction model is trained to give (https://arxiv.org/abs/2202.00512, appendix D). */
  getVelocity(sample: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    return this.mix(noise, sample, timesteps, tf.sub);
  }

  private mix(
    signal: tf.Tensor,
    rest: tf.Tensor,
    timesteps: number | ArrayLike<number>,
    combine: typeof tf.add,
  ): tf.Tensor {
    const alphas = asList(timesteps).map((t) => this.alphaAt(t));
    return tf.tidy(() =>
      combine(
        tf.mul(perItem(alphas.map(sqrt32), signal), signal),
        tf.mul(
          perItem(
            alphas.map((a) => sqrt32(f32(1 - a))),
            signal,
          ),
          rest,
        ),
      ),
    );
  }

  /** Cumulated alpha of a training step; as in Python, -1 is the last one. */
  protected alphaAt(timestep: number): number {
    const alpha = this.alphasCumprod.at(timestep);
    if (alpha === undefined || !Number.isInteger(timestep)) {
      throw new InvalidArgumentError(
        `[${this.className}] timestep ${timestep} is no training step: expects an integer from 0 to ${this.alphasCumprod.length - 1}`,
      );
    }
    return alpha;
  }

  protected previousAlphaAt(timestep: number): number {
    return timestep >= 0 ? this.alphaAt(timestep) : this.finalAlphaCumprod;
  }

  /** The clean sample that the model's output stands for, before any clipping. */
  protected predictOriginal(modelOutput: tf.Tensor, sample: tf.Tensor, alpha: number): tf.Tensor {
    const [signal, noise] = [sqrt32(alpha), sqrt32(f32(1 - alpha))];
    switch (this.alphaConfig.prediction_type) {
      case 'epsilon':
        return tf.div(tf.sub(sample, tf.mul(noise, modelOutput)), signal);
      case 'sample':
        return tf.clone(modelOutput);
      default:
        return tf.sub(tf.mul(signal, sample), tf.mul(noise, modelOutput));
    }
  }

  /** The noise that the model's output stands for. */
  protected predictEpsilon(modelOutput: tf.Tensor, sample: tf.Tensor, alpha: number): tf.Tensor {
    switch (this.alphaConfig.prediction_type) {
      case 'epsilon':
        return modelOutput;
      case 'sample':
        return this.epsilonOf(modelOutput, sample, alpha);
      default:
        return tf.add(tf.mul(sqrt32(alpha), modelOutput), tf.mul(sqrt32(f32(1 - alpha)), sample));
    }
  }

  protected epsilonOf(original: tf.Tensor, sample: tf.Tensor, alpha: number): tf.Tensor {
    return tf.div(tf.sub(sample, tf.mul(sqrt32(alpha), original)), sqrt32(f32(1 - alpha)));
  }

  /** The clean sample, thresholded or clipped as the configuration says. */
  protected restrain(original: tf.Tensor): tf.Tensor {
    const config = this.alphaConfig;
    if (config.thresholding) {
      return thresholdSample(original, config.dynamic_thresholding_ratio!, config.sample_max_value!);
    }
    const range = config.clip_sample_range!;
    return config.clip_sample ? tf.clipByValue(original, -range, range) : original;
  }
}
