/** Every scheduler: the registry knows those that are exported here. */
export * from './scheduling_ddim.js';
export * from './scheduling_dpmsolver_multistep.js';
export { EulerAncestralDiscreteScheduler } from './scheduling_euler_ancestral_discrete.js';
export * from './scheduling_euler_discrete.js';
export * from './scheduling_lms_discrete.js';
export * from './scheduling_pndm.js';
