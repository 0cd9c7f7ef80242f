import type { SchedulerMixin } from '../../schedulers/index.js';

/** The web UI's names of the samplers; a scheduler that it does not have keeps its own. */
const SAMPLER_NAMES: Readonly<Record<string, string>> = {
  DDIMScheduler: 'DDIM',
  PNDMScheduler: 'PLMS',
  EulerDiscreteScheduler: 'Euler',
  EulerAncestralDiscreteScheduler: 'Euler a',
  DPMSolverSDEScheduler: 'DPM++ SDE',
  LMSDiscreteScheduler: 'LMS',
  HeunDiscreteScheduler: 'Heun',
  KDPM2DiscreteScheduler: 'DPM2',
  KDPM2AncestralDiscreteScheduler: 'DPM2 a',
  UniPCMultistepScheduler: 'UniPC',
  LCMScheduler: 'LCM',
};

/** DPM-Solver's names say the version, the order, single steps or many, and whether noise is added. */
const SOLVERS: Readonly<Record<string, string>> = {
  DPMSolverMultistepScheduler: 'M',
  DPMSolverSinglestepScheduler: 'S',
};

/** The web UI's name of what a scheduler computes. */
export function samplerName({ className, config }: SchedulerMixin): string {
  const kind = SOLVERS[className];
  if (!kind) {
    return SAMPLER_NAMES[className] ?? className;
  }
  const { algorithm_type: algorithm, solver_order: order } = config as Record<string, unknown>;
  const version = String(algorithm).endsWith('++') ? 'DPM++' : 'DPM';
  return `${version} ${order}${kind}${String(algorithm).startsWith('sde') ? ' SDE' : ''}`;
}

const SCHEDULE_TYPES = {
  use_karras_sigmas: 'Karras',
  use_exponential_sigmas: 'Exponential',
  use_beta_sigmas: 'Beta',
};

/** The web UI's name of how noise levels are spaced, where a scheduler converts them. */
export function scheduleType({ config }: SchedulerMixin): string | undefined {
  const entries = config as Record<string, unknown>;
  return Object.entries(SCHEDULE_TYPES).find(([entry]) => entries[entry] === true)?.[1];
}
