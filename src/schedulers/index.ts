export type { PredictionType, SchedulerConfigJson, TimestepSpacing } from './common/config.js';
export {
  type SchedulerClass,
  SchedulerMixin,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';
export {
  createScheduler,
  findScheduler,
  type SchedulerClassName,
  type SchedulerName,
  type SchedulerShortName,
  schedulerFromConfig,
  schedulerNames,
} from './registry.js';
export { DDIMScheduler } from './scheduling_ddim.js';
export { DDPMScheduler } from './scheduling_ddpm.js';
export { DEISMultistepScheduler } from './scheduling_deis_multistep.js';
export { DPMSolverMultistepScheduler } from './scheduling_dpmsolver_multistep.js';
export { DPMSolverSinglestepScheduler } from './scheduling_dpmsolver_singlestep.js';
export { EulerAncestralDiscreteScheduler } from './scheduling_euler_ancestral_discrete.js';
export { EulerDiscreteScheduler } from './scheduling_euler_discrete.js';
export { FlowMatchEulerDiscreteScheduler } from './scheduling_flow_match_euler_discrete.js';
export { HeunDiscreteScheduler } from './scheduling_heun_discrete.js';
export { KDPM2AncestralDiscreteScheduler } from './scheduling_k_dpm_2_ancestral_discrete.js';
export { KDPM2DiscreteScheduler } from './scheduling_k_dpm_2_discrete.js';
export { LCMScheduler } from './scheduling_lcm.js';
export { LMSDiscreteScheduler } from './scheduling_lms_discrete.js';
export { PNDMScheduler } from './scheduling_pndm.js';
export { TCDScheduler } from './scheduling_tcd.js';
export { UniPCMultistepScheduler } from './scheduling_unipc_multistep.js';
