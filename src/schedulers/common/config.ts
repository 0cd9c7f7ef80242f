import {
  type ConfigOf,
  checkFieldNames,
  choice,
  count,
  type Fields,
  flag,
  integer,
  list,
  number,
  type OptionsOf,
  optional,
  readFields,
  snakeCased,
} from '../../config/fields.js';
import { invalid, is } from '../../utils/check.js';

/** A scheduler_config.json as it is: snake_case keys, and keys of other schedulers among them. */
export type SchedulerConfigJson = Readonly<Record<string, unknown>>;

/** Entries that a short name stands for. */
export type Entries = Readonly<Record<string, unknown>>;

export const PREDICTION_TYPES = ['epsilon', 'sample', 'v_prediction', 'flow_prediction', 'original_sample'] as const;
/** What the model's output means: the noise, the clean sample, the velocity, or the flow. */
export type PredictionType = (typeof PREDICTION_TYPES)[number];

/** Variance of a step's noise, fixed by the schedule or learned by the model. */
export const VARIANCE_TYPES = [
  'fixed_small',
  'fixed_small_log',
  'fixed_large',
  'fixed_large_log',
  'learned',
  'learned_range',
] as const;

export const BETA_SCHEDULES = ['linear', 'scaled_linear', 'squaredcos_cap_v2'] as const;

export const TIMESTEP_SPACINGS = ['linspace', 'leading', 'trailing'] as const;
/** Table 2 of https://arxiv.org/abs/2305.08891. */
export type TimestepSpacing = (typeof TIMESTEP_SPACINGS)[number];

/** How a flow's schedule is shifted for the size of a picture. */
export const TIME_SHIFT_TYPES = ['exponential', 'linear'] as const;
export type TimeShiftType = (typeof TIME_SHIFT_TYPES)[number];

/** Most training steps and inference steps; a schedule holds some numbers for each. */
export const MAX_STEPS = 100_000;

export const trainingSteps = count(1000, MAX_STEPS);

/** Configuration entries of every scheduler with a trained noise schedule, with diffusers' usual defaults. */
export const NOISE_SCHEDULE_FIELDS = {
  num_train_timesteps: trainingSteps,
  beta_start: number(0.0001),
  beta_end: number(0.02),
  beta_schedule: choice<string>('linear', BETA_SCHEDULES),
  trained_betas: optional(list(number(0), [], MAX_STEPS)),
  prediction_type: choice('epsilon', PREDICTION_TYPES),
};

export function spacingFields(spacing: TimestepSpacing) {
  return {
    timestep_spacing: choice(spacing, TIMESTEP_SPACINGS),
    steps_offset: integer(0, { min: -MAX_STEPS, max: MAX_STEPS }),
  };
}

export const SIGMA_CONVERSION_FIELDS = {
  use_karras_sigmas: flag(false),
  use_exponential_sigmas: flag(false),
  use_beta_sigmas: flag(false),
};

export const THRESHOLDING_FIELDS = {
  thresholding: flag(false),
  dynamic_thresholding_ratio: number(0.995, { min: 0, max: 1 }),
  sample_max_value: number(1),
};

/** Flow schedules of the multistep solvers. */
export const FLOW_FIELDS = {
  use_flow_sigmas: flag(false),
  flow_shift: number(1),
  use_dynamic_shifting: flag(false),
  time_shift_type: choice('exponential', TIME_SHIFT_TYPES),
};

export const finalSigmas = choice('zero', ['zero', 'sigma_min'] as const);

/** A class with a configuration, as `fromConfig` and the registry handle it. */
export interface ConfigurableClass<T = unknown> {
  new (options?: Entries): T;
  /** diffusers' name, `_class_name` in scheduler_config.json. */
  readonly className: string;
  readonly fields: Fields;
  /** Usual short names, each with the configuration entries that it stands for. */
  readonly shortNames: Readonly<Record<string, Entries>>;
  readonly compatibles: readonly string[];
  fromConfig(config: SchedulerConfigJson, overrides?: object): T;
}

/** Schedulers that can be made from one another's configuration (`KarrasDiffusionSchedulers` of diffusers). */
export const KARRAS_DIFFUSION_SCHEDULERS: readonly string[] = [
  'DDIMScheduler',
  'DDPMScheduler',
  'PNDMScheduler',
  'LMSDiscreteScheduler',
  'EulerDiscreteScheduler',
  'HeunDiscreteScheduler',
  'EulerAncestralDiscreteScheduler',
  'DPMSolverMultistepScheduler',
  'DPMSolverSinglestepScheduler',
  'KDPM2DiscreteScheduler',
  'KDPM2AncestralDiscreteScheduler',
  'DEISMultistepScheduler',
  'UniPCMultistepScheduler',
  'DPMSolverSDEScheduler',
];

/** Names of the entries that took their defaults: another scheduler made from this one uses its own defaults there. */
const DEFAULTED = '_use_default_values';

/** The configuration of a scheduler (`ConfigMixin` of diffusers/configuration_utils.py). */
export abstract class ConfigMixin<C extends object> {
  static readonly className: string = '';
  static readonly fields: Fields = {};
  static readonly shortNames: Readonly<Record<string, Entries>> = {};
  static readonly compatibles: readonly string[] = KARRAS_DIFFUSION_SCHEDULERS;

  private settings: C & SchedulerConfigJson;

  /**
   * @param options entries of the configuration, in snake_case or camelCase; defaults for the rest.
   * @throws InvalidArgumentError for a value that its entry cannot hold, or a name that is no entry.
   */
  constructor(options?: OptionsOf<C>) {
    const { className, fields } = this.constructor as typeof ConfigMixin;
    const given = snakeCased(options ?? {});
    checkFieldNames(className, fields, given);
    const defaulted = Object.keys(fields).filter((key) => !(key in given));
    const notes = defaulted.length > 0 ? { [DEFAULTED]: defaulted } : {};
    this.settings = Object.freeze({ ...readFields(className, fields, given), ...notes }) as C & SchedulerConfigJson;
  }

  /**
   * A scheduler of this class from a scheduler_config.json or from another scheduler's `config`. Entries that this
   * class does not know are kept in `config`, so that a scheduler made from that has them again
   * (`extract_init_dict` of diffusers).
   *
   * @param overrides entries that win over the configuration's, in camelCase or snake_case; each must be one of this
   *   class.
   * @throws InvalidArgumentError for a value that the class cannot use.
   */
  // biome-ignore-start lint/complexity/noThisInStatic: `this` is the class that inherits the method, and is made
  static fromConfig<S extends { updateConfig(entries: Entries): void }>(
    this: { new (options?: never): S; className: string; fields: Fields },
    config: SchedulerConfigJson,
    overrides: object = {},
  ): S {
    if (!is.object(config)) {
      throw invalid(`${this.className}.fromConfig`, 'config', 'the object of a scheduler_config.json', config);
    }
    const defaulted = new Set(Array.isArray(config[DEFAULTED]) ? config[DEFAULTED] : []);
    const given = Object.entries(config).filter(([key]) => key !== DEFAULTED && !defaulted.has(key));
    const isOption = ([key]: [string, unknown]): boolean => Object.hasOwn(this.fields, key);
    const options = { ...Object.fromEntries(given.filter(isOption)), ...snakeCased(overrides) };
    const hidden = Object.fromEntries(given.filter((entry) => !isOption(entry)));
    const scheduler = new this(options as never);
    scheduler.updateConfig('_class_name' in hidden ? { ...hidden, _class_name: this.className } : hidden);
    return scheduler;
  }
  // biome-ignore-end lint/complexity/noThisInStatic: see above

  /** The configuration by diffusers' names; frozen. Other schedulers' `fromConfig` take it. */
  get config(): C & SchedulerConfigJson {
    return this.settings;
  }

  /** diffusers' name of this class. */
  get className(): string {
    return (this.constructor as typeof ConfigMixin).className;
  }

  /** Names of the classes that can be made from this scheduler's configuration. */
  get compatibles(): readonly string[] {
    return (this.constructor as typeof ConfigMixin).compatibles;
  }

  /**
   * The content of a scheduler_config.json for this scheduler. Values may be infinite, which standard JSON cannot say:
   * `stringifyPythonJson` writes them as Python does.
   */
  toConfig(): Record<string, unknown> {
    const entries = Object.entries(this.settings).filter(([key]) => key !== DEFAULTED);
    return { ...Object.fromEntries(entries), _class_name: this.className };
  }

  /** Replaces entries of the configuration (diffusers' `register_to_config`). */
  updateConfig(entries: Entries): void {
    this.settings = Object.freeze({ ...this.settings, ...entries });
  }
}

export type { ConfigOf };
