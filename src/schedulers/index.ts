export * from './classes.js';
export { createScheduler, findScheduler, schedulerFromConfig, schedulerNames } from './registry.js';
export type { SchedulerConfigJson } from './scheduler_config.js';
export type { PredictionType } from './scheduler_fields.js';
export {
  type SchedulerClass,
  SchedulerMixin,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './scheduling_utils.js';
export type { TimestepSpacing } from './timestep_spacing.js';
