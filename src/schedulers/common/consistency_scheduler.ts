import { type ConfigOf, choice, count, flag, number } from '../../config/fields.js';
import { AlphaScheduler } from './alpha_scheduler.js';
import { BETA_SCHEDULES, MAX_STEPS, NOISE_SCHEDULE_FIELDS, spacingFields, THRESHOLDING_FIELDS } from './config.js';
import { linspace } from './numeric.js';
import type { SetTimestepsOptions } from './scheduling_utils.js';

export const CONSISTENCY_FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...THRESHOLDING_FIELDS,
  ...spacingFields('leading'),
  beta_start: number(0.00085),
  beta_end: number(0.012),
  beta_schedule: choice<string>('scaled_linear', BETA_SCHEDULES),
  original_inference_steps: count(50, MAX_STEPS),
  clip_sample: flag(false),
  clip_sample_range: number(1),
  set_alpha_to_one: flag(true),
  timestep_scaling: number(10),
  rescale_betas_zero_snr: flag(false),
};

/** Schedulers of distilled models, whose few steps are taken from the schedule of the distillation (LCM, TCD). */
export abstract class ConsistencyScheduler extends AlphaScheduler<ConfigOf<typeof CONSISTENCY_FIELDS>> {
  static override readonly compatibles: readonly string[] = [];

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'sample', 'v_prediction']);
    const steps = this.checkSteps(numInferenceSteps, options, ['timesteps', 'originalInferenceSteps', 'strength']);
    const original = options.originalInferenceSteps ?? this.config.original_inference_steps;
    const strength = options.strength ?? 1;
    this.checkShare(original, strength);
    const timesteps = options.timesteps
      ? this.customTimesteps(options.timesteps, strength)
      : this.pick(this.distilled(original, strength, options), steps, original, strength);
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.timesteps = timesteps;
  }

  /** Ascending training steps of the distillation's schedule. */
  protected distilled(original: number, strength: number, _options: SetTimestepsOptions): number[] {
    const ratio = Math.floor(this.length / original);
    return Array.from({ length: Math.trunc(original * strength) }, (_, i) => (i + 1) * ratio - 1);
  }

  private customTimesteps(timesteps: readonly number[], strength: number): number[] {
    this.checkDescending(timesteps);
    const used = Math.min(Math.trunc(timesteps.length * strength), timesteps.length);
    return timesteps.slice(timesteps.length - used).map(Math.trunc);
  }

  private pick(ascending: readonly number[], steps: number, original: number, strength: number): number[] {
    this.checkNotAbove(steps, this.length);
    if (steps > ascending.length || steps > original) {
      const expected = `at most original_inference_steps x strength = ${original} x ${strength}`;
      throw this.invalidStep('numInferenceSteps', expected, steps);
    }
    const descending = [...ascending].reverse();
    return linspace(0, descending.length, steps, false).map((i) => descending[Math.floor(i)]!);
  }

  private checkShare(original: number, strength: number): void {
    if (!Number.isInteger(original) || original < 1 || original > this.length) {
      throw this.invalidStep('originalInferenceSteps', `an integer from 1 to ${this.length}`, original);
    }
    if (!(strength > 0 && strength <= 1)) {
      throw this.invalidStep('strength', 'a number above 0 and at most 1', strength);
    }
  }
}
