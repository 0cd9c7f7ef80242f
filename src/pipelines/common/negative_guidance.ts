import type { SchedulerMixin } from '../../schedulers/index.js';

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

/** Noise level (sigma, relative to the sample) at the scheduler's step number `step`. */
export function noiseLevel(scheduler: SchedulerMixin, step: number): number {
  const { sigmas, alphasCumprod } = scheduler as { sigmas?: ArrayLike<number>; alphasCumprod?: ArrayLike<number> };
  if (sigmas && sigmas.length > step) {
    return sigmas[step]!;
  }
  const timestep = scheduler.timesteps[step]!;
  const alpha = alphasCumprod?.[Math.round(timestep)];
  return alpha === undefined ? Number.POSITIVE_INFINITY : Math.sqrt((1 - alpha) / alpha);
}

/** Whether a step leaves the unconditional half out (stable-diffusion-webui, modules/sd_samplers_cfg_denoiser.py). */
export function skipsUnconditional(
  options: NegativeGuidanceOptions,
  step: number,
  total: number,
  sigma: number,
): boolean {
  const { negativeGuidanceMinSigma = 0, negativeGuidanceSteps = 'alternate', skipEarlyCond = 0 } = options;
  if (skipEarlyCond !== 0 && step / total <= skipEarlyCond) {
    return true;
  }
  const alternates = step % 2 === 1 || negativeGuidanceSteps === 'all';
  return alternates && negativeGuidanceMinSigma > 0 && sigma < negativeGuidanceMinSigma;
}
