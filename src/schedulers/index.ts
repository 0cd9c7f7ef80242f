export type { Bounds, CamelCased, ConfigOf, Field, Fields, OptionsOf } from '../config/fields.js';
export { type AlphaConfig, AlphaScheduler } from './common/alpha_scheduler.js';
export type {
  ConfigMixin,
  ConfigurableClass,
  Entries,
  PredictionType,
  SchedulerConfigJson,
  TimestepSpacing,
} from './common/config.js';
export { ConsistencyScheduler } from './common/consistency_scheduler.js';
export { type AlgorithmType, type DPMSolverConfig, DPMSolverScheduler } from './common/dpm_solver.js';
export { type EDMConfig, EDMScheduler } from './common/edm_scheduler.js';
export type { BetaOptions, SigmaConversion, SigmaRange } from './common/schedule.js';
export {
  type SchedulerClass,
  type SchedulerConfig,
  SchedulerMixin,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';
export { type SigmaConfig, SigmaScheduler } from './common/sigma_scheduler.js';
export { type SolverConfig, SolverScheduler } from './common/solver_scheduler.js';
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
export { DDIMInverseScheduler } from './scheduling_ddim_inverse.js';
export { DDPMScheduler } from './scheduling_ddpm.js';
export { DEISMultistepScheduler } from './scheduling_deis_multistep.js';
export { DPMSolverMultistepScheduler } from './scheduling_dpmsolver_multistep.js';
export { DPMSolverSDEScheduler } from './scheduling_dpmsolver_sde.js';
export { DPMSolverSinglestepScheduler } from './scheduling_dpmsolver_singlestep.js';
export { EDMDPMSolverMultistepScheduler } from './scheduling_edm_dpmsolver_multistep.js';
export { EDMEulerScheduler } from './scheduling_edm_euler.js';
export { EulerAncestralDiscreteScheduler } from './scheduling_euler_ancestral_discrete.js';
export { EulerDiscreteScheduler } from './scheduling_euler_discrete.js';
export { FlowMatchEulerDiscreteScheduler } from './scheduling_flow_match_euler_discrete.js';
export { FlowMatchHeunDiscreteScheduler } from './scheduling_flow_match_heun_discrete.js';
export { HeunDiscreteScheduler } from './scheduling_heun_discrete.js';
export { IPNDMScheduler } from './scheduling_ipndm.js';
export { KDPM2AncestralDiscreteScheduler } from './scheduling_k_dpm_2_ancestral_discrete.js';
export { KDPM2DiscreteScheduler, type KDPM2Scheduler } from './scheduling_k_dpm_2_discrete.js';
export { LCMScheduler } from './scheduling_lcm.js';
export { LMSDiscreteScheduler } from './scheduling_lms_discrete.js';
export { PNDMScheduler } from './scheduling_pndm.js';
export { SASolverScheduler } from './scheduling_sasolver.js';
export { TCDScheduler } from './scheduling_tcd.js';
export { UniPCMultistepScheduler } from './scheduling_unipc_multistep.js';
