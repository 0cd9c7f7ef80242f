import type { Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { invalid, is } from '../../utils/check.js';
import type { Branch, Conditioning, Conditions } from './conditioning.js';
import type { Denoiser, LoopStep } from './denoising_loop.js';
import { type Check, type Checks, choice, NUMBER, SHARE, type StepChanges } from './options.js';

/** When the unconditional half may be left out; the result of such a step is the conditional prediction. */
export interface NegativeGuidanceOptions {
  /**
   * Below this noise level every other step leaves the negative prompt out; 0 (default) never does
   * (stable-diffusion-webui's "Negative Guidance minimum sigma", s_min_uncond). Useful values: 1 to 4.
   */
  negativeGuidanceMinSigma?: number;
  /** 'all': below the level every step leaves it out, not every other one (s_min_uncond_all). Default 'alternate'. */
  negativeGuidanceSteps?: 'alternate' | 'all';
  /** Share of the first steps, 0 to 1, that leave the negative prompt out (the web UI's skip_early_cond). Default 0. */
  skipEarlyCond?: number;
}

export interface GuidanceOptions extends NegativeGuidanceOptions {
  /** 0 to 1, counters over-exposure of guided pictures (Lin et al. 2023). Default 0. */
  guidanceRescale?: number;
}

const LEVEL: Check = [(value) => is.number(value) && value >= 0, 'a noise level of at least 0'];

export const GUIDANCE_CHECKS: Checks<GuidanceOptions> = {
  guidanceRescale: NUMBER,
  negativeGuidanceMinSigma: LEVEL,
  negativeGuidanceSteps: choice(['alternate', 'all']),
  skipEarlyCond: SHARE,
};

/** A model's predictions by branch, each of the latents' shape. */
export type Predictions<T extends Tensor> = Partial<Record<Branch, T>>;

/** How the predictions of several branches become one. */
export type CombineBranches<T extends Tensor> = (predictions: Predictions<T>, scale: number, rescale: number) => T;

/** Standard deviation of each sample over all its numbers, [B,1,...]. */
function standardDeviation<T extends Tensor>(x: T): T {
  const axes = x.shape.slice(1).map((_, i) => i + 1);
  const centered = tf.sub(x, tf.mean(x, axes, true));
  return tf.sqrt(tf.mean(tf.square(centered), axes, true));
}

/**
 * Classifier-free guidance (Ho & Salimans 2022): uncond + scale (cond - uncond), brought back towards the deviation of
 * the conditional prediction by `rescale` (Lin et al. 2023, diffusers' rescale_noise_cfg).
 *
 * @param predictions of the branches unconditional and conditional, both [B, ...]
 * @returns [B, ...]
 */
export function classifierFreeGuidance<T extends Tensor>(predictions: Predictions<T>, scale: number, rescale = 0): T {
  return tf.tidy(() => {
    const { unconditional, conditional } = predictions as { unconditional: T; conditional: T };
    const guided = tf.add<T>(unconditional, tf.mul(tf.sub(conditional, unconditional), scale));
    if (rescale <= 0) {
      return guided;
    }
    const rescaled = tf.mul(guided, tf.div(standardDeviation(conditional), standardDeviation(guided)));
    return tf.add<T>(tf.mul(rescaled, rescale), tf.mul(guided, 1 - rescale));
  });
}

/** Whether a step leaves the unconditional half out (stable-diffusion-webui, modules/sd_samplers_cfg_denoiser.py). */
export function skipsUnconditional(
  options: NegativeGuidanceOptions,
  { step, total, sigma }: Pick<LoopStep, 'step' | 'total' | 'sigma'>,
): boolean {
  const { negativeGuidanceMinSigma = 0, negativeGuidanceSteps = 'alternate', skipEarlyCond = 0 } = options;
  if (skipEarlyCond !== 0 && step / total <= skipEarlyCond) {
    return true;
  }
  const alternates = step % 2 === 1 || negativeGuidanceSteps === 'all';
  return alternates && negativeGuidanceMinSigma > 0 && sigma < negativeGuidanceMinSigma;
}

/**
 * A model's call: latents [B, ...] at the scheduler's scale, where B counts the rows of all branches taken together.
 *
 * @returns the prediction, of the latents' shape
 */
export type ModelCall<T extends Tensor> = (
  latents: T,
  timestep: number,
  conditions: Conditions,
  step: LoopStep,
) => T | Promise<T>;

export interface GuidedDenoiserOptions<T extends Tensor> extends GuidanceOptions {
  guidanceScale: number;
  /** How branches are combined. Default `classifierFreeGuidance`. */
  combine?: CombineBranches<T>;
  /** For error messages. */
  where?: string;
}

/**
 * Calls a model for the branches of guidance that a step needs, in one batch, and combines what it predicts. With the
 * conditional branch alone there is no guidance.
 */
export class GuidedDenoiser<T extends Tensor> implements Denoiser<T> {
  private scale: number;

  /** @param conditioning stays the caller's, and is changed by what callbacks ask for */
  constructor(
    private readonly model: ModelCall<T>,
    private readonly conditioning: Conditioning,
    private readonly options: GuidedDenoiserOptions<T>,
  ) {
    this.scale = options.guidanceScale;
  }

  async predict(latents: T, timestep: number, step: LoopStep): Promise<T> {
    const branches = this.branchesAt(step);
    const input = tf.tidy(() => tf.concat(new Array<T>(branches.length).fill(latents), 0));
    const conditions = this.conditioning.take(branches);
    try {
      const prediction = await this.model(input, timestep, conditions, step);
      return branches.length === 1 ? prediction : this.combine(prediction, branches);
    } finally {
      input.dispose();
    }
  }

  private branchesAt(step: LoopStep): readonly Branch[] {
    const guided = this.scale > 1 && !skipsUnconditional(this.options, step);
    return guided ? this.conditioning.branches : ['conditional'];
  }

  /** Takes the prediction of all branches over. */
  private combine(prediction: T, branches: readonly Branch[]): T {
    const { combine = classifierFreeGuidance, guidanceRescale = 0 } = this.options;
    try {
      return tf.tidy(() => {
        const parts = tf.split(prediction, branches.length, 0);
        const byBranch = Object.fromEntries(branches.map((branch, i) => [branch, parts[i]!])) as Predictions<T>;
        return combine(byBranch, this.scale, guidanceRescale);
      });
    } finally {
      prediction.dispose();
    }
  }

  /**
   * Goes on with other embeddings or another guidance scale.
   *
   * @throws InvalidArgumentError for embeddings of another shape and a scale that is no number
   */
  change({ promptEmbeds, guidanceScale = this.scale }: StepChanges<T>): void {
    const where = this.options.where ?? 'GuidedDenoiser';
    if (promptEmbeds !== undefined && promptEmbeds !== null) {
      this.conditioning.replace(where, 'encoderHiddenStates', "the callback's promptEmbeds", promptEmbeds);
    }
    if (!is.number(guidanceScale)) {
      throw invalid(where, "the callback's guidanceScale", 'a number', guidanceScale);
    }
    this.scale = guidanceScale;
  }
}
