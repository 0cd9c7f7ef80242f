import { warnOfUnknown } from '../config/fields.js';
import { InvalidArgumentError } from '../errors.js';
import { invalid } from '../utils/check.js';
import type { Entries, SchedulerConfigJson } from './common/config.js';
import type { SchedulerClass, SchedulerMixin } from './common/scheduling_utils.js';
import { DDIMScheduler } from './scheduling_ddim.js';
import { DDIMInverseScheduler } from './scheduling_ddim_inverse.js';
import { DDPMScheduler } from './scheduling_ddpm.js';
import { DEISMultistepScheduler } from './scheduling_deis_multistep.js';
import { DPMSolverMultistepScheduler } from './scheduling_dpmsolver_multistep.js';
import { DPMSolverSDEScheduler } from './scheduling_dpmsolver_sde.js';
import { DPMSolverSinglestepScheduler } from './scheduling_dpmsolver_singlestep.js';
import { EDMDPMSolverMultistepScheduler } from './scheduling_edm_dpmsolver_multistep.js';
import { EDMEulerScheduler } from './scheduling_edm_euler.js';
import { EulerAncestralDiscreteScheduler } from './scheduling_euler_ancestral_discrete.js';
import { EulerDiscreteScheduler } from './scheduling_euler_discrete.js';
import { FlowMatchEulerDiscreteScheduler } from './scheduling_flow_match_euler_discrete.js';
import { FlowMatchHeunDiscreteScheduler } from './scheduling_flow_match_heun_discrete.js';
import { HeunDiscreteScheduler } from './scheduling_heun_discrete.js';
import { IPNDMScheduler } from './scheduling_ipndm.js';
import { KDPM2AncestralDiscreteScheduler } from './scheduling_k_dpm_2_ancestral_discrete.js';
import { KDPM2DiscreteScheduler } from './scheduling_k_dpm_2_discrete.js';
import { LCMScheduler } from './scheduling_lcm.js';
import { LMSDiscreteScheduler } from './scheduling_lms_discrete.js';
import { PNDMScheduler } from './scheduling_pndm.js';
import { SASolverScheduler } from './scheduling_sasolver.js';
import { TCDScheduler } from './scheduling_tcd.js';
import { UniPCMultistepScheduler } from './scheduling_unipc_multistep.js';

/** Every scheduler; `createScheduler`, `--scheduler` and model_index.json know those that are listed here. */
const SCHEDULERS = [
  DDIMInverseScheduler,
  DDIMScheduler,
  DDPMScheduler,
  DEISMultistepScheduler,
  DPMSolverMultistepScheduler,
  DPMSolverSDEScheduler,
  DPMSolverSinglestepScheduler,
  EDMDPMSolverMultistepScheduler,
  EDMEulerScheduler,
  EulerAncestralDiscreteScheduler,
  EulerDiscreteScheduler,
  FlowMatchEulerDiscreteScheduler,
  FlowMatchHeunDiscreteScheduler,
  HeunDiscreteScheduler,
  IPNDMScheduler,
  KDPM2AncestralDiscreteScheduler,
  KDPM2DiscreteScheduler,
  LCMScheduler,
  LMSDiscreteScheduler,
  PNDMScheduler,
  SASolverScheduler,
  TCDScheduler,
  UniPCMultistepScheduler,
] as const;

type Listed = (typeof SCHEDULERS)[number];
type ShortNameOf<S> = S extends { readonly shortNames: infer Names } ? keyof Names : never;
/** diffusers' class names. */
export type SchedulerClassName = Listed['className'];
/** The usual short names, such as `euler_a` and `dpmpp_2m_karras`. */
export type SchedulerShortName = ShortNameOf<Listed>;
/** What `createScheduler` takes; editors complete the known names, and other spellings of them are taken, too. */
export type SchedulerName = SchedulerClassName | SchedulerShortName | (string & {});

const BY_CLASS_NAME = new Map<string, SchedulerClass>();
const BY_SHORT_NAME = new Map<string, { scheduler: SchedulerClass; entries: Entries }>();
const KNOWN_ENTRIES = new Set<string>();
for (const scheduler of SCHEDULERS as readonly SchedulerClass[]) {
  BY_CLASS_NAME.set(scheduler.className, scheduler);
  for (const [name, entries] of Object.entries(scheduler.shortNames)) {
    BY_SHORT_NAME.set(name, { scheduler, entries });
  }
  for (const name of Object.keys(scheduler.fields)) {
    KNOWN_ENTRIES.add(name);
  }
}

/** Names that `createScheduler` takes: diffusers' class names and the usual short ones. */
export function schedulerNames(): { classNames: string[]; shortNames: string[] } {
  return { classNames: [...BY_CLASS_NAME.keys()].sort(), shortNames: [...BY_SHORT_NAME.keys()].sort() };
}

/**
 * The scheduler class of a name, and the configuration entries that the name stands for.
 * @param name diffusers' class name, or a short name in any of its spellings: `dpmpp_2m_karras`, `DPM++ 2M Karras`.
 * @throws InvalidArgumentError for an unknown name; the message lists the known ones.
 */
export function findScheduler(name: SchedulerName): { scheduler: SchedulerClass; entries: Entries } {
  const scheduler = BY_CLASS_NAME.get(name);
  if (scheduler) {
    return { scheduler, entries: {} };
  }
  const found = BY_SHORT_NAME.get(normalize(String(name)));
  if (!found) {
    const { classNames, shortNames } = schedulerNames();
    throw new InvalidArgumentError(
      `[scheduler] "${name}" is unknown; expects one of ${shortNames.join(', ')}, or a class: ${classNames.join(', ')}`,
    );
  }
  return found;
}

/**
 * A scheduler by name for a model whose scheduler is configured by `config`.
 * @param overrides entries that win over the name's, which win over the configuration's; each must be one of this class.
 */
export function createScheduler(
  name: SchedulerName,
  config: SchedulerConfigJson = {},
  overrides: object = {},
): SchedulerMixin {
  const { scheduler, entries } = findScheduler(name);
  // Two steps, as in diffusers: the name's entries are then part of the configuration, and not defaults.
  return scheduler.fromConfig(scheduler.fromConfig(config, entries).config, overrides);
}

/**
 * The scheduler that a scheduler_config.json describes, of the class that its `_class_name` says. Entries that no
 * scheduler knows are warned about once.
 * @throws InvalidArgumentError when the class is missing or unknown.
 */
export function schedulerFromConfig(config: SchedulerConfigJson, overrides: object = {}): SchedulerMixin {
  const name = config?._class_name;
  if (typeof name !== 'string') {
    const expected = 'a class such as "EulerDiscreteScheduler", as a scheduler_config.json has it';
    throw invalid('schedulerFromConfig', '_class_name', expected, name);
  }
  warnOfUnknown('scheduler_config.json', KNOWN_ENTRIES, config);
  return createScheduler(name, config, overrides);
}

function normalize(name: string): string {
  return name
    .trim()
    .toLowerCase()
    .replace(/\+\+/g, 'pp')
    .replace(/[\s-]+/g, '_');
}
