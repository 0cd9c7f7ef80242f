import type { SchedulerMixin } from '../../schedulers/index.js';
import { invalid } from '../../utils/check.js';
import { applySchedule, beginAt, type ScheduleOptions } from '../common/schedule.js';

/**
 * Lays out a schedule of which the last part is taken: from where another model stopped, or by strength.
 *
 * @returns the first step
 * @throws InvalidArgumentError for a start that does not come before the end
 */
export function takeLastPart(
  { className, scheduler }: { className: string; scheduler: SchedulerMixin },
  options: ScheduleOptions & { denoisingStart?: number; denoisingEnd?: number },
): number {
  const { numInferenceSteps, timesteps, sigmas, denoisingStart: start, denoisingEnd: end } = options;
  const inside = (share: number | undefined): share is number => share !== undefined && share > 0 && share < 1;
  if (!inside(start)) {
    return applySchedule(className, scheduler, { numInferenceSteps, timesteps, sigmas, strength: options.strength });
  }
  if (inside(end) && start >= end) {
    throw invalid(className, 'denoisingStart', `a share below denoisingEnd ${end}`, start);
  }
  applySchedule(className, scheduler, { numInferenceSteps, timesteps, sigmas });
  return beginAt(className, scheduler, start);
}
