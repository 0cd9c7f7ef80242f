import type { TensorContainer } from '@tensorflow/tfjs-core';
import { files } from '#platform';
import {
  type AttentionLayer,
  type AttentionOptions,
  type AttentionPlace,
  type AttentionSetting,
  resolveAttention,
  type SliceSize,
  setAttentionAt,
} from '../attention/index.js';
import type { PhysicalType } from '../backends/types.js';
import { readJson, writeJson } from '../config/config.js';
import { InvalidArgumentError } from '../errors.js';
import type { InputFile } from '../images/read_image.js';
import { isReplacedBySaving } from '../loaders/checkpoint_files.js';
import { openStateDict, writeSafetensors } from '../loaders/safetensors/index.js';
import { encodeFromFloat32 } from '../loaders/safetensors/number_formats.js';
import type { StateDict } from '../loaders/state_dict.js';
import { initRandom, type Layer, type Parameter, type Weights } from '../nn/index.js';
import { invalid, is, oneOf } from '../utils/check.js';
import { baseName, joinPath } from '../utils/paths.js';
import { type LoadStateDictOptions, loadStateDict } from './model_loading.js';
import { type ForwardPass, type ForwardState, runPass, runPassInBlocks, WeightStore } from './offload.js';

const SAVED_TYPES = ['F32', 'F16', 'BF16'] as const;

/** A configuration as it stands in a config.json, keys in snake_case. */
export type ConfigJson = Readonly<Record<string, unknown>>;

export interface ModelOptions {
  /** How attention is computed (src/attention/methods/registry.ts); the environment or 'auto' decides when left out. */
  attention?: AttentionSetting;
  /** How native backends store the weights; the others always compute in float32. Default 'float32'. */
  dtype?: PhysicalType;
}

export interface LoadModelOptions extends ModelOptions, Pick<LoadStateDictOptions, 'signal' | 'onProgress'> {
  /** 'fp16' takes the files whose names carry it, where there are any. */
  variant?: string;
}

export interface FromConfigOptions extends ModelOptions {
  /** 'random': weights of the usual size without a file, for tests and benchmarks. */
  init?: 'random';
  seed?: number;
}

export interface SaveOptions {
  /** Type of the numbers in the file. Default 'F32'. */
  dtype?: 'F32' | 'F16' | 'BF16';
  /** Goes into the file names: 'fp16'. */
  variant?: string;
}

/** What a model class tells the functions that load it. */
export interface ModelClass<M extends Model> {
  new (config: ConfigJson, options?: ModelOptions & { source?: string }): M;
  /** File name of the weights without its ending. */
  readonly weightsName: string;
  /** Keys of checkpoints that are not weights. */
  readonly ignoredKeys?: RegExp;
  /** Keys of config.json that Python insists on as floats. */
  readonly floatSettings?: readonly string[];
}

/** A part of a model that can keep nothing for the backward pass and compute once more instead. */
export interface Checkpointed {
  checkpoint: boolean;
}

/** A network with its configuration and named parameters (diffusers/models/modeling_utils.py ModelMixin). */
export abstract class Model {
  /** Opens the files that the weights came from; null for a model without files. */
  private openCheckpoint: (() => Promise<StateDict>) | null = null;
  readonly dtype: PhysicalType;
  /** How attention is computed now. */
  protected attention: AttentionOptions;
  /** How attention was computed before slicing was switched on. */
  private attentionBeforeSlicing: AttentionOptions | null = null;
  /** Where weights are read from while the model is offloaded. */
  private store: WeightStore | null = null;
  /** While the model is offloaded: only the block at work is in memory. */
  sequentialOffload = false;
  /** What was put into the model, adapters for instance, and is freed with it. */
  readonly attached = new Set<{ dispose(): void }>();
  /** The file that the model was loaded from by itself, for the metadata of pictures; undefined where nobody noted it. */
  file: InputFile | undefined;

  protected constructor(
    /** config.json as it was given. */
    readonly config: ConfigJson,
    private readonly weights: Weights,
    options: ModelOptions = {},
  ) {
    this.dtype = options.dtype ?? 'float32';
    this.attention = resolveAttention(options.attention);
  }

  /** Every tensor of the model; a parameter's path is its checkpoint key. */
  get parameters(): readonly Parameter[] {
    return this.weights.parameters;
  }

  /** How attention is computed now. */
  get attentionOptions(): Readonly<AttentionOptions> {
    return this.attention;
  }

  /** Every attention layer, in the order of computation. */
  get attentionLayers(): readonly AttentionLayer[] {
    return [];
  }

  /** Where the way to compute attention is chosen. */
  protected get attentionPlaces(): readonly AttentionPlace[] {
    return [];
  }

  /**
   * Computes attention in another way from now on, see ATTENTION_NAMES; in every layer, or when it throws in none.
   *
   * @throws InvalidArgumentError for a name that is not known and options out of range
   */
  setAttention(setting: AttentionSetting): void {
    this.useAttention(resolveAttention(setting));
    this.attentionBeforeSlicing = null;
  }

  /**
   * Attention slicing in every layer, or when it throws in none. null computes as before slicing.
   * Source: diffusers/models/attention_processor.py (set_attention_slice).
   *
   * @throws InvalidArgumentError when the slice is larger than a layer's number of heads
   */
  setAttentionSlice(sliceSize: SliceSize | null): void {
    const before = this.attentionBeforeSlicing ?? this.attention;
    this.useAttention(sliceSize === null ? before : resolveAttention({ name: 'sliced', sliceSize }));
    this.attentionBeforeSlicing = sliceSize === null ? null : before;
  }

  private useAttention(options: AttentionOptions): void {
    setAttentionAt(this.attentionPlaces, options);
    this.attention = options;
  }

  /** Every layer with weights by its path: `model.layers.get('mid_block.attentions.0.proj_in')`. */
  get layers(): ReadonlyMap<string, Layer> {
    return this.weights.layers;
  }

  /**
   * Takes fused adapters out of the weights again, by reading those weights from the checkpoint's files.
   *
   * @throws InvalidArgumentError for a model that was not loaded from files
   */
  async unfuse(): Promise<void> {
    const fused = this.parameters.filter((parameter) => parameter.fused.length > 0);
    if (fused.length === 0) {
      return;
    }
    const store = this.store ?? (await this.openStore());
    for (const parameter of fused) {
      parameter.unfuse();
    }
    if (store !== this.store) {
      await store.load(fused);
      await store.close();
    }
  }

  /** Writes config.json and the weights into `dir`, as Python diffusers reads them. */
  async savePretrained(dir: string, options: SaveOptions = {}): Promise<void> {
    const { dtype = 'F32', variant } = options;
    checkSaveOptions(options);
    const { weightsName, floatSettings } = this.constructor as unknown as ModelClass<this>;
    const missing = this.store ? undefined : this.parameters.find((parameter) => !parameter.isLoaded);
    if (missing) {
      throw new InvalidArgumentError(
        `[savePretrained] the weights are not loaded (or were disposed of): there is no ${missing.path} to write`,
      );
    }
    const file = `${weightsName}.${variant ? `${variant}.` : ''}safetensors`;
    const entries = this.parameters.map((parameter) => ({
      name: parameter.path,
      dtype,
      shape: parameter.shape,
      data: async () => encodeFromFloat32(await this.numbersOf(parameter), dtype),
    }));
    const fill = async (staging: string) => {
      await writeSafetensors(joinPath(staging, file), entries);
      await writeJson(joinPath(staging, 'config.json'), this.config, floatSettings);
    };
    await files.save(dir, fill, (path) => isReplacedBySaving(path, variant));
  }

  /** A parameter's numbers, also while its model is offloaded. */
  private numbersOf(parameter: Parameter): Promise<Float32Array> {
    const read = () => parameter.data();
    return parameter.isLoaded || !this.store ? read() : this.store.using([parameter], read);
  }

  /** Remembers where the weights come from, so that they can be read again. */
  attachCheckpoint(open: () => Promise<StateDict>): void {
    this.openCheckpoint = open;
  }

  /** Whether the weights are in memory only while `withWeights` runs. */
  get isOffloaded(): boolean {
    return this.store !== null;
  }

  /**
   * Frees the weights; from now on `withWeights` reads them from the checkpoint's files for as long as they are needed.
   *
   * @throws InvalidArgumentError for a model that was not loaded from files
   */
  async enableOffload(): Promise<void> {
    if (!this.store) {
      this.store = await this.openStore();
      this.store.release(this.parameters);
    }
  }

  private async openStore(): Promise<WeightStore> {
    if (!this.openCheckpoint) {
      throw new InvalidArgumentError(
        `[${this.constructor.name}] only a model that was loaded from files can read its weights again; ` +
          'save it with savePretrained and load it with fromPretrained',
      );
    }
    const { ignoredKeys: ignore } = this.constructor as unknown as ModelClass<this>;
    const dict = await this.openCheckpoint();
    try {
      return new WeightStore(this.parameters, dict, this.dtype, { ignore });
    } catch (error) {
      await dict.close();
      throw error;
    }
  }

  /** Reads the weights back into memory for good. */
  async disableOffload(): Promise<void> {
    await this.store?.load(this.parameters);
    await this.store?.close();
    this.store = null;
  }

  /** Runs `f` with the weights in memory: an offloaded model reads them before and frees them afterwards. */
  async withWeights<T>(f: () => T | Promise<T>): Promise<T> {
    const { store } = this;
    if (!store) {
      return f();
    }
    try {
      await store.load(this.sequentialOffload ? this.outsideBlocks : this.parameters);
      return await f();
    } finally {
      store.release(this.parameters);
    }
  }

  /** Paths of the blocks that sequential offload holds one at a time, in the order of computation. */
  protected get blockPaths(): readonly string[] {
    return [];
  }

  private parametersOf(block: string): readonly Parameter[] {
    return this.parameters.filter(({ path }) => path.startsWith(`${block}.`));
  }

  private get outsideBlocks(): readonly Parameter[] {
    const inside = new Set(this.blockPaths.flatMap((block) => this.parametersOf(block)));
    return this.parameters.filter((parameter) => !inside.has(parameter));
  }

  /** Runs a forward pass whose weights are in memory. */
  protected runPass<S extends ForwardState, T extends TensorContainer>(create: () => ForwardPass<S, T>): T {
    if (this.sequentialOffload && this.store) {
      throw new InvalidArgumentError(
        `[${this.constructor.name}] blocks are read from files one at a time: await predict(...) instead of forward(...)`,
      );
    }
    return runPass(create);
  }

  /** Runs a forward pass; with sequential offload it waits for the weights of each block. */
  protected runOrAwaitPass<S extends ForwardState, T extends TensorContainer>(
    create: () => ForwardPass<S, T>,
  ): T | Promise<T> {
    return this.sequentialOffload && this.store
      ? runPassInBlocks(create, this.store, (block) => this.parametersOf(block))
      : runPass(create);
  }

  /** What gradient checkpointing switches. */
  protected get checkpointed(): readonly Checkpointed[] {
    return [];
  }

  /**
   * Training with less memory: blocks keep nothing for the backward pass, which computes them once more. The gradients
   * are the same.
   */
  enableGradientCheckpointing(on = true): void {
    for (const part of this.checkpointed) {
      part.checkpoint = on;
    }
  }

  disableGradientCheckpointing(): void {
    this.enableGradientCheckpointing(false);
  }

  /** Frees the weights; the model cannot be used afterwards. */
  dispose(): void {
    for (const parameter of this.parameters) {
      parameter.dispose();
    }
    for (const part of this.attached) {
      part.dispose();
    }
    this.attached.clear();
    // nothing waits for the files to be closed, and a failure to close a file that was only read changes nothing
    this.store?.close().catch(() => undefined);
    this.store = null;
  }
}

/** @throws InvalidArgumentError for a type that cannot be written and for a variant that is no part of a file name */
export function checkSaveOptions({ dtype, variant }: SaveOptions): void {
  if (dtype !== undefined && !is.oneOf(SAVED_TYPES, dtype)) {
    throw invalid('savePretrained', 'dtype', oneOf(SAVED_TYPES), dtype);
  }
  if (variant !== undefined && !/^[\w-]+$/.test(variant)) {
    throw invalid('savePretrained', 'variant', "letters, digits, '_' and '-', such as 'fp16'", variant);
  }
}

/**
 * Loads a model from a directory with config.json and safetensors weights (one file or shards).
 *
 * @throws ConfigError, CheckpointError, StateDictError when the directory does not hold such a model
 * @throws AbortedError through the signal
 */
export async function loadModel<M extends Model>(
  modelClass: ModelClass<M>,
  dir: string,
  options: LoadModelOptions = {},
): Promise<M> {
  await files.finishSaves(dir);
  const source = joinPath(baseName(dir), 'config.json');
  const config = (await readJson(joinPath(dir, 'config.json'))) as ConfigJson;
  const model = new modelClass(config, { ...options, source });
  const open = () => openStateDict(dir, modelClass.weightsName, { variant: options.variant });
  model.attachCheckpoint(open);
  const dict = await open();
  try {
    const { dtype, signal, onProgress } = options;
    const ignore = modelClass.ignoredKeys;
    await loadStateDict(model.parameters, dict, { dtype, signal, onProgress, ignore, source: dir });
  } finally {
    await dict.close();
  }
  return model;
}

/** Builds a model from a configuration alone; `init: 'random'` gives it weights, otherwise it has none yet. */
export function modelFromConfig<M extends Model>(
  modelClass: ModelClass<M>,
  config: ConfigJson,
  options: FromConfigOptions = {},
): M {
  const { init, seed = 0, ...rest } = options;
  if (init !== undefined && init !== 'random') {
    throw invalid('fromConfig', 'init', "'random' or nothing", init);
  }
  const model = new modelClass(config, rest);
  if (init === 'random') {
    initRandom(model.parameters, seed, options.dtype);
  }
  return model;
}
