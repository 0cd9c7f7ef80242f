/** Every scheduler: the registry knows those that are exported here. */
export * from './scheduling_ddim.js';
export * from './scheduling_ddpm.js';
export * from './scheduling_deis_multistep.js';
export * from './scheduling_dpmsolver_multistep.js';
export * from './scheduling_dpmsolver_singlestep.js';
export * from './scheduling_euler_ancestral_discrete.js';
export * from './scheduling_euler_discrete.js';
export * from './scheduling_flow_match_euler_discrete.js';
export * from './scheduling_heun_discrete.js';
export * from './scheduling_k_dpm_2_ancestral_discrete.js';
export * from './scheduling_k_dpm_2_discrete.js';
export * from './scheduling_lcm.js';
export * from './scheduling_lms_discrete.js';
export * from './scheduling_pndm.js';
export * from './scheduling_tcd.js';
export * from './scheduling_unipc_multistep.js';
