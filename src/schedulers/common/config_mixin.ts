import { InvalidArgumentError } from '../../errors.js';
import {
  type ConfigOf,
  extractOptions,
  type Fields,
  resolveConfig,
  type SchedulerConfigJson,
  withoutNotes,
} from './scheduler_config.js';

/** A class with a configuration, as `fromConfig` and the registry handle it. */
export interface ConfigurableClass<T = unknown> {
  new (options?: Readonly<Record<string, unknown>>): T;
  /** diffusers' name, `_class_name` in scheduler_config.json. */
  readonly className: string;
  readonly fields: Fields;
  /** Usual short names, each with the configuration entries that it stands for. */
  readonly shortNames: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
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
];

/** The configuration of a scheduler (`ConfigMixin` of diffusers/configuration_utils.py). */
export abstract class ConfigMixin<F extends Fields = Fields> {
  static readonly className: string = '';
  static readonly fields: Fields = {};
  static readonly shortNames: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {};
  static readonly compatibles: readonly string[] = KARRAS_DIFFUSION_SCHEDULERS;

  private settings: ConfigOf<F>;

  constructor(options: object = {}) {
    const { className, fields } = this.constructor as unknown as ConfigurableClass;
    this.settings = Object.freeze(resolveConfig(className, fields as F, options));
  }

  /**
   * A scheduler of this class from a scheduler_config.json or from another scheduler's `config`. Entries that this
   * class does not know are kept in `config`, so that a scheduler made from that has them again.
   *
   * @param overrides entries that win over the configuration's, in camelCase or snake_case.
   * @throws InvalidArgumentError for a value that the class cannot use.
   */
  // biome-ignore-start lint/complexity/noThisInStatic: `this` is the class that inherits the method, and is made
  static fromConfig<S extends ConfigMixin>(
    this: { new (options?: never): S; className: string; fields: Fields },
    config: SchedulerConfigJson,
    overrides: object = {},
  ): S {
    if (typeof config !== 'object' || config === null || Array.isArray(config)) {
      const got = Array.isArray(config) ? 'an array' : config === null ? 'null' : typeof config;
      throw new InvalidArgumentError(
        `[${this.className}.fromConfig] expects the object of a scheduler_config.json, got ${got}`,
      );
    }
    const { options, hidden } = extractOptions(this.fields, config, overrides);
    const scheduler = new this(options as never);
    if ('_class_name' in hidden) {
      hidden._class_name = this.className;
    }
    scheduler.updateConfig(hidden);
    return scheduler;
  }
  // biome-ignore-end lint/complexity/noThisInStatic: see above

  /** The configuration by diffusers' names; frozen. Other schedulers' `fromConfig` take it. */
  get config(): ConfigOf<F> & SchedulerConfigJson {
    return this.settings as ConfigOf<F> & SchedulerConfigJson;
  }

  /** diffusers' name of this class. */
  get className(): string {
    return (this.constructor as unknown as ConfigurableClass).className;
  }

  /** Names of the classes that can be made from this scheduler's configuration. */
  get compatibles(): readonly string[] {
    return (this.constructor as unknown as ConfigurableClass).compatibles;
  }

  /**
   * The content of a scheduler_config.json for this scheduler. Values may be infinite, which standard JSON cannot say:
   * `stringifyPythonJson` of the loaders writes them as Python does.
   */
  toConfig(): Record<string, unknown> {
    return { ...withoutNotes(this.settings), _class_name: this.className };
  }

  /** Same as `toConfig`. */
  saveConfig(): Record<string, unknown> {
    return this.toConfig();
  }

  /** Replaces entries of the configuration (diffusers' `register_to_config`). */
  updateConfig(entries: Readonly<Record<string, unknown>>): void {
    this.settings = Object.freeze({ ...this.settings, ...entries }) as ConfigOf<F>;
  }
}
