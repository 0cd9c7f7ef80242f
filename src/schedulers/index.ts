export * from './classes.js';
export type { SchedulerConfigJson } from './common/scheduler_config.js';
export type { PredictionType } from './common/scheduler_fields.js';
export {
  type SchedulerClass,
  SchedulerMixin,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';
export type { TimestepSpacing } from './common/timestep_spacing.js';
export { createScheduler, findScheduler, schedulerFromConfig, schedulerNames } from './registry.js';
