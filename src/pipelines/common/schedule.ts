import { roundHalfEven } from '../../schedulers/common/numeric.js';
import type { SchedulerMixin } from '../../schedulers/index.js';
import { invalid } from '../../utils/check.js';

/** What a schedule is laid out by. */
export interface ScheduleOptions {
  numInferenceSteps: number;
  /** Own timesteps or noise levels, descending, instead of a number of steps. */
  timesteps?: readonly number[];
  sigmas?: readonly number[];
  /** Shift of flow-matching schedules for the picture's size. */
  mu?: number;
  /** LCM: steps of the schedule that the model was distilled with. */
  originalInferenceSteps?: number;
  /** Share of the schedule, its last part, that is used when pictures begin with other pictures; above 0, up to 1. */
  strength?: number;
}

/**
 * Lays the scheduler's timesteps out (diffusers' retrieve_timesteps and img2img's get_timesteps).
 *
 * @param where for error messages
 * @returns index into `scheduler.timesteps` of the first step to take; 0 without strength
 * @throws InvalidArgumentError for options that the scheduler does not take, and for a strength that leaves no step
 */
export function applySchedule(where: string, scheduler: SchedulerMixin, options: ScheduleOptions): number {
  const { numInferenceSteps, timesteps, sigmas, mu, originalInferenceSteps, strength } = options;
  const given = Object.entries({ timesteps, sigmas, mu, originalInferenceSteps });
  const own = timesteps !== undefined || sigmas !== undefined;
  scheduler.setTimesteps(
    own ? null : numInferenceSteps,
    Object.fromEntries(given.filter(([, value]) => value !== undefined)),
  );
  if (strength === undefined) {
    return 0;
  }
  const begin = firstStep(where, own ? scheduler.timesteps.length : numInferenceSteps, strength) * scheduler.order;
  scheduler.setBeginIndex(begin);
  return begin;
}

/** The timestep at which a share of the noise is gone; models that share a schedule exchange latents there. */
function cutoff({ config }: SchedulerMixin, share: number): number {
  const { num_train_timesteps: steps } = config as { num_train_timesteps: number };
  return roundHalfEven(steps - share * steps);
}

/**
 * The first step of a model that goes on where another one stopped (SDXL's denoising_start).
 *
 * @throws InvalidArgumentError for a share that leaves no step
 */
export function beginAt(where: string, scheduler: SchedulerMixin, denoisingStart: number): number {
  const { timesteps, order } = scheduler;
  const count = timesteps.filter((timestep) => timestep < cutoff(scheduler, denoisingStart)).length;
  if (count === 0) {
    throw invalid(where, 'denoisingStart', `a share that leaves one of the ${timesteps.length} steps`, denoisingStart);
  }
  // second-order schedulers have every timestep but the highest twice, and stop after the second
  const taken = order === 2 && count % 2 === 0 ? count + 1 : count;
  const begin = timesteps.length - taken;
  scheduler.setBeginIndex(begin);
  return begin;
}

/**
 * One after the last step of a model that another one takes over from (SDXL's denoising_end).
 *
 * @throws InvalidArgumentError for a share that leaves no step
 */
export function endAt(where: string, scheduler: SchedulerMixin, begin: number, denoisingEnd: number): number {
  const rest = scheduler.timesteps.slice(begin);
  const count = rest.filter((timestep) => timestep >= cutoff(scheduler, denoisingEnd)).length;
  if (count === 0) {
    throw invalid(where, 'denoisingEnd', `a share that leaves one of the ${rest.length} steps`, denoisingEnd);
  }
  return begin + count;
}

/** Steps to leave out at the beginning, of `steps` in all. */
function firstStep(where: string, steps: number, strength: number): number {
  const taken = Math.min(Math.trunc(steps * strength), steps);
  if (taken < 1) {
    throw invalid(where, 'strength', `at least 1 / ${steps}, one of the ${steps} steps`, strength);
  }
  return steps - taken;
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
