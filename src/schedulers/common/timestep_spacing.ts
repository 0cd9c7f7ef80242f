import { arange, f32, linspace, roundHalfEven } from './numeric.js';

export const TIMESTEP_SPACINGS = ['linspace', 'leading', 'trailing'] as const;
/** Table 2 of https://arxiv.org/abs/2305.08891. */
export type TimestepSpacing = (typeof TIMESTEP_SPACINGS)[number];

interface SpacingOptions {
  timestep_spacing: TimestepSpacing;
  num_train_timesteps: number;
  /** Added to the steps of "leading". */
  steps_offset: number;
}

/** Descending integer training steps (DDIM, DDPM, PNDM). */
export function integerTimesteps(config: SpacingOptions, steps: number): number[] {
  const { num_train_timesteps: trained } = config;
  if (config.timestep_spacing === 'linspace') {
    return linspace(0, trained - 1, steps)
      .map(roundHalfEven)
      .reverse();
  }
  return leadingOrTrailing(config, steps, trained, steps);
}

/** Descending training steps in float32, fractions for "linspace" (the schedulers that work on sigmas). */
export function fractionalTimesteps(config: SpacingOptions, steps: number): number[] {
  const { num_train_timesteps: trained } = config;
  if (config.timestep_spacing === 'linspace') {
    return linspace(0, trained - 1, steps)
      .map(f32)
      .reverse();
  }
  return leadingOrTrailing(config, steps, trained, steps);
}

/**
 * Descending integer training steps of the multistep solvers, which lay out one step more than asked for and leave out
 * the last; only the first `usable` training steps are used (`lambda_min_clipped`).
 */
export function solverTimesteps(config: SpacingOptions, steps: number, usable = config.num_train_timesteps): number[] {
  if (config.timestep_spacing === 'linspace') {
    return linspace(0, usable - 1, steps + 1)
      .map(roundHalfEven)
      .reverse()
      .slice(0, -1);
  }
  if (config.timestep_spacing === 'trailing') {
    return leadingOrTrailing(config, steps, usable, steps);
  }
  return leadingOrTrailing(config, steps + 1, usable, steps).slice(0, -1);
}

function leadingOrTrailing(config: SpacingOptions, count: number, usable: number, steps: number): number[] {
  if (config.timestep_spacing === 'leading') {
    const ratio = Math.floor(usable / count);
    return Array.from({ length: count }, (_, i) => i * ratio + config.steps_offset).reverse();
  }
  return arange(usable, 0, -config.num_train_timesteps / steps).map((t) => roundHalfEven(t) - 1);
}
