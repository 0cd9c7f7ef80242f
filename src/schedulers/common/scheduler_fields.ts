import { choice, flag, integer, number, numbers, optional } from './scheduler_config.js';
import { TIMESTEP_SPACINGS, type TimestepSpacing } from './timestep_spacing.js';

export const PREDICTION_TYPES = ['epsilon', 'sample', 'v_prediction', 'flow_prediction', 'original_sample'] as const;
/** What the model's output means: the noise, the clean sample, the velocity, or the flow. */
export type PredictionType = (typeof PREDICTION_TYPES)[number];

/** Variance of a step's noise, fixed by the schedule or learned by the model. */
export const VARIANCE_TYPES = [
  'fixed_small',
  'fixed_small_log',
  'fixed_large',
  'fixed_large_log',
  'learned',
  'learned_range',
] as const;

export const BETA_SCHEDULES = ['linear', 'scaled_linear', 'squaredcos_cap_v2'] as const;

/** Configuration entries of every scheduler with a trained noise schedule, with diffusers' usual defaults. */
export const NOISE_SCHEDULE_FIELDS = {
  num_train_timesteps: integer(1000, 1),
  beta_start: number(0.0001),
  beta_end: number(0.02),
  beta_schedule: choice<string>('linear', BETA_SCHEDULES),
  trained_betas: optional(numbers),
  prediction_type: choice<PredictionType>('epsilon', PREDICTION_TYPES),
};

export function spacingFields(spacing: TimestepSpacing) {
  return { timestep_spacing: choice<TimestepSpacing>(spacing, TIMESTEP_SPACINGS), steps_offset: integer(0) };
}

export const SIGMA_CONVERSION_FIELDS = {
  use_karras_sigmas: flag(false),
  use_exponential_sigmas: flag(false),
  use_beta_sigmas: flag(false),
};

export const THRESHOLDING_FIELDS = {
  thresholding: flag(false),
  dynamic_thresholding_ratio: number(0.995),
  sample_max_value: number(1),
};
