import type { Tensor4D } from '@tensorflow/tfjs-core';
import { files } from '#platform';
import {
  type AttentionName,
  type AttentionOptions,
  type AttentionSetting,
  attentionStatistics,
  resolveAttention,
  type SliceSize,
} from '../../attention/index.js';
import type { GeneratedImage } from '../../images/index.js';
import { isReplacedBySaving } from '../../loaders/checkpoint_files.js';
import { namesFile } from '../../loaders/hub/weights_file.js';
import { Autoencoder, CLIPTextModel } from '../../models/index.js';
import type { Model, SaveOptions } from '../../models/model.js';
import type { SchedulerConfigJson, SchedulerMixin } from '../../schedulers/index.js';
import { expectThat, is } from '../../utils/check.js';
import { AdapterLoader } from './adapter_loader.js';
import type { Prompt } from './callable.js';
import {
  type ComponentTable,
  checkComponents,
  disposeAll,
  type FromPretrainedOptions,
  loadComponents,
  modelsOf,
  type PipelineConfig,
  saveComponents,
} from './components.js';
import type { Check, GenerationOptions, Images, Output, OutputType } from './options.js';
import { checkOptions, withoutNulls } from './options.js';
import { CallQueue } from './queue.js';

/** What every pipeline has beside its models. */
export interface WithScheduler {
  scheduler: SchedulerMixin;
}

/** A pipeline class, for loading: its name in model_index.json, its components, its constructor. */
export interface PipelineClass<C extends WithScheduler, P> {
  readonly className: string;
  readonly componentTable: ComponentTable<C>;
  /** @throws ConfigError for components that cannot work together */
  new (components: C): P;
}

/** What a pipeline keeps of how it was loaded, for the metadata of pictures. */
export interface LoadedPipeline extends WithScheduler {
  /** Name of the checkpoint. */
  modelName: string | undefined;
  /** Configuration of the checkpoint's scheduler; undefined when another was given in its place. */
  checkpointScheduler: SchedulerConfigJson | undefined;
  /** Components that were given in place of the checkpoint's. */
  givenComponents: readonly string[];
  /** Settings in model_index.json. */
  config: PipelineConfig;
}

/** `fromPretrained` of a pipeline class. */
export async function loadPipeline<C extends WithScheduler, P extends LoadedPipeline>(
  Pipeline: PipelineClass<C, P>,
  idOrDir: string,
  options: FromPretrainedOptions<C>,
): Promise<P> {
  const { className, componentTable } = Pipeline;
  const { components, modelName, config } = await loadComponents(className, componentTable, idOrDir, options ?? {});
  try {
    const pipe = new Pipeline(components);
    pipe.modelName = modelName;
    pipe.config = Object.fromEntries(Object.entries(pipe.config).map(([key, own]) => [key, config[key] ?? own]));
    const given = Object.entries(options ?? {}).filter(([name, part]) => name in componentTable && part);
    pipe.givenComponents = given.map(([name]) => name);
    pipe.checkpointScheduler = options?.scheduler ? undefined : pipe.scheduler.config;
    return pipe;
  } catch (error) {
    const given = Object.values(options ?? {});
    disposeAll(Object.values(components).filter((part) => !given.includes(part)));
    throw error;
  }
}

/**
 * Base of all pipelines (diffusers/pipelines/pipeline_utils.py DiffusionPipeline): components, saving, attention, memory,
 * and calls, which run one after another. An instance is a function: `await pipe(prompt, options)`.
 *
 * @typeParam C the components by name
 * @typeParam Options the options of a call
 */
export abstract class DiffusionPipeline<
  C extends WithScheduler,
  Options extends GenerationOptions,
> extends AdapterLoader<Options> {
  /** Name of the checkpoint, for the metadata of pictures. */
  modelName: string | undefined;
  /** Configuration of the checkpoint's scheduler, of which the metadata tells the differences. */
  checkpointScheduler: SchedulerConfigJson | undefined;
  /** Components that `fromPretrained` was given in place of the checkpoint's. */
  givenComponents: readonly string[] = [];
  /** Settings in model_index.json beside the components, by their names there, with diffusers' defaults. */
  config: PipelineConfig = {};
  private readonly calls = new CallQueue();

  protected constructor(
    private readonly parts: C,
    private readonly table: ComponentTable<C>,
    /** diffusers' name of the class, in model_index.json and in messages. */
    readonly className: string,
  ) {
    super();
    checkComponents(className, table, parts);
  }

  /**
   * Loads a checkpoint that is one .safetensors file in the layout of the original code, as model sites have them.
   *
   * @param source a path, or an address on the hub: https://huggingface.co/organisation/name/blob/main/file.safetensors
   * @param options those of fromPretrained; `config` is a directory of configurations in place of the built-in ones
   * @throws CheckpointError, StateDictError, ConfigError, DownloadError that say what is wrong with it
   */
  static async fromSingleFile<P, O extends object>(
    this: { fromPretrained(idOrDir: string, options?: O): Promise<P> },
    source: string,
    options?: O,
  ): Promise<P> {
    const isFile = is.string(source) && (namesFile(source, undefined) || source.includes('://'));
    expectThat(isFile, 'fromSingleFile', 'the checkpoint', 'the path or address of a .safetensors file', source);
    // biome-ignore lint/complexity/noThisInStatic: each pipeline's own
    return this.fromPretrained(source, options);
  }

  get components(): C {
    return { ...this.parts };
  }

  get scheduler(): SchedulerMixin {
    return this.parts.scheduler;
  }

  /** The next call takes the new one. */
  set scheduler(scheduler: SchedulerMixin) {
    this.parts.scheduler = scheduler;
  }

  /** The components that are models, in the order of their work. */
  get models(): Model[] {
    return modelsOf(this.parts).map(([, model]) => model);
  }

  /**
   * Writes the pipeline into `dir` in diffusers' layout, whole or not at all; Python diffusers loads it. Other files there
   * stay, but for those of a checkpoint that it replaces.
   *
   * @throws InvalidArgumentError for options out of range, FileWriteError when it cannot be written
   */
  savePretrained(dir: string, options: SaveOptions = {}): Promise<void> {
    const fill = (staging: string) =>
      saveComponents(this.className, this.table, this.parts, staging, { ...options, config: this.config });
    return files.save(dir, fill, (path) => isReplacedBySaving(path, options.variant));
  }

  /**
   * Computes attention in another way from now on, in all models.
   *
   * @param setting a name of ATTENTION_NAMES, or an object with one and its options
   * @throws InvalidArgumentError for a name that is not known and options out of range
   */
  setAttention(setting: AttentionSetting): void {
    for (const model of this.models) {
      model.setAttention(setting);
    }
  }

  /** How many attention layers of denoiser and VAE each class computed in the last call: what 'auto' took is seen here. */
  get attentionStatistics(): Partial<Record<AttentionName, number>> {
    const models = this.models.filter((model) => !(model instanceof CLIPTextModel));
    return attentionStatistics(models.flatMap(({ attentionLayers }) => attentionLayers));
  }

  /**
   * Computes attention in slices, with less memory, in all models but the VAE.
   *
   * @param sliceSize rows of batch x heads at a time, 'auto' for half of the heads, 'max' for the least memory
   */
  enableAttentionSlicing(sliceSize: SliceSize = 'auto'): void {
    this.setAttentionSlice(sliceSize);
  }

  /** Computes attention as before enableAttentionSlicing. */
  disableAttentionSlicing(): void {
    this.setAttentionSlice(null);
  }

  private setAttentionSlice(sliceSize: SliceSize | null): void {
    for (const model of this.models.filter((model) => !(model instanceof Autoencoder))) {
      model.setAttentionSlice(sliceSize);
    }
  }

  /** The same as setAttention('memory-efficient'), under the name that it has in diffusers. */
  enableXformersMemoryEfficientAttention(options: Pick<AttentionOptions, 'attentionOp'> = {}): void {
    this.setAttention({ name: 'memory-efficient', ...options });
  }

  /** Back to what the environment or the backend decides. */
  disableXformersMemoryEfficientAttention(): void {
    this.setAttention(resolveAttention());
  }

  /**
   * Keeps only the model at work in memory, one at a time (stable-diffusion-webui's medvram). The others are read from the
   * checkpoint's files when their turn comes; pictures are identical.
   *
   * @throws InvalidArgumentError when a model was not loaded from files
   */
  async enableModelCpuOffload(): Promise<void> {
    for (const model of this.models) {
      await model.enableOffload();
      model.sequentialOffload = false;
    }
  }

  /** The same, and of models made of blocks only the block at work (lowvram): least memory, every step reads all weights. */
  async enableSequentialCpuOffload(): Promise<void> {
    await this.enableModelCpuOffload();
    for (const model of this.models) {
      model.sequentialOffload = true;
    }
  }

  /** Reads all weights back into memory for good. */
  async disableCpuOffload(): Promise<void> {
    for (const model of this.models) {
      await model.disableOffload();
      model.sequentialOffload = false;
    }
  }

  /** Frees every weight; the pipeline cannot be used afterwards. */
  dispose(): void {
    disposeAll(Object.values(this.parts));
  }

  /**
   * Draws pictures; the same as calling the pipeline itself.
   *
   * @param prompt one or several texts; undefined with `promptEmbeds`
   * @throws InvalidArgumentError for options that cannot be used, AbortedError through the signal
   */
  async run<O extends OutputType = 'image'>(
    prompt: Prompt,
    options: Options & { outputType?: O } = {} as Options & { outputType?: O },
  ): Promise<Output<Images<O>>> {
    const given = withoutNulls<Options>(this.className, options);
    checkOptions(this.className, options ?? {}, this.checks);
    // the scheduler keeps the state of one run, so a second call waits for the first
    const result = this.calls.add(this.className, () => this.draw(prompt ?? undefined, given), given.signal);
    return result as Promise<Output<Images<O>>>;
  }

  /** Names of the options that a call takes. */
  get optionNames(): string[] {
    return Object.keys(this.checks);
  }

  private draw(prompt: Prompt, options: Options): Promise<Output<GeneratedImage[] | Tensor4D>> {
    return this.withCallAdapters(prompt, options, () => this.generate(prompt, options));
  }

  /** How the options that a call takes are checked. */
  protected abstract get checks(): Readonly<Record<string, Check>>;

  protected abstract generate(prompt: Prompt, options: Options): Promise<Output<GeneratedImage[] | Tensor4D>>;
}
