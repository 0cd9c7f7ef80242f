import type { Tensor, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { files, yieldToEventLoop } from '#platform';
import {
  type AttentionName,
  type AttentionOptions,
  type AttentionSetting,
  attentionStatistics,
  resolveAttention,
  restartTokenMerging,
  type SliceSize,
} from '../../attention/index.js';
import { synchronize } from '../../backends/traits.js';
import { GeneratedImage } from '../../images/index.js';
import { isReplacedBySaving } from '../../loaders/checkpoint_files.js';
import type { AutoencoderKL, CLIPTextModel, UNet2DConditionModel, UNetInputs } from '../../models/index.js';
import { timestepEmbedding } from '../../ops/index.js';
import type { SchedulerMixin } from '../../schedulers/index.js';
import { asTokenizer, type Tokenizer, type TransformersJsTokenizer } from '../../tokenizers/index.js';
import { randnTensor } from '../../utils/randn_tensor.js';
import { Callable } from '../common/callable.js';
import {
  type FromPretrainedOptions,
  loadStableDiffusionComponents,
  saveStableDiffusionComponents,
} from '../common/components.js';
import { PromptState } from '../common/conditioning.js';
import { type GenerationRecord, imageMetadata } from '../common/generation_metadata.js';
import { classifierFreeGuidance } from '../common/guidance.js';
import { withPictureAdvice } from '../common/memory_advice.js';
import { type NegativeGuidanceOptions, noiseLevel, skipsUnconditional } from '../common/negative_guidance.js';
import {
  checkLatentCount,
  checkLatents,
  checkOptions,
  type DenoisingStep,
  type NoiseSource,
  nextGuidanceScale,
  noiseSource,
  type OutputType,
  type StableDiffusionOptions,
  type StepDecision,
} from '../common/options.js';
import { checkAborted, withoutNulls } from '../common/pipeline_utils.js';
import { Turns } from '../common/queue.js';
import { checkPrompts, encodePrompt, promptCount } from './encode_prompt.js';
import { bringUpToDate, trainedSize } from './outdated_configs.js';

/** The parts of a StableDiffusionPipeline, as in model_index.json. */
export interface StableDiffusionComponents {
  tokenizer: Tokenizer;
  textEncoder: CLIPTextModel;
  unet: UNet2DConditionModel;
  vae: AutoencoderKL;
  scheduler: SchedulerMixin;
}

/** Seconds spent in each stage of a call. */
export interface Timings {
  encode: number;
  denoise: number;
  decode: number;
  total: number;
  /** Each denoising step. */
  steps: number[];
}

export interface StableDiffusionPipelineOutput<T = GeneratedImage[]> {
  /** GeneratedImage objects, or a tensor that the caller owns with outputType 'tensor' or 'latent'. */
  images: T;
  /** Seed of the batch, or of each picture. */
  seeds: bigint[];
  timings: Timings;
}

type Images<O extends OutputType> = O extends 'image' ? GeneratedImage[] : Tensor4D;

/** Inputs of the denoising loop alone. */
export interface DenoisingInputs {
  /** [B,h,w,4] at the scheduler's first noise level; taken over and disposed of by the loop. */
  latents: Tensor4D;
  /** [2B, tokens, D] with the negative half first when guidance is on, else [B, tokens, D]. */
  promptEmbeds: Tensor3D;
  guidance: boolean;
  options: Pick<StableDiffusionOptions, 'guidanceScale' | 'guidanceRescale' | 'eta' | 'signal'> &
    NegativeGuidanceOptions;
  generator: NoiseSource['generator'];
}

type Draw = <O extends OutputType = 'image'>(
  prompt: string | readonly string[] | undefined,
  options?: StableDiffusionOptions & { outputType?: O },
) => Promise<StableDiffusionPipelineOutput<Images<O>>>;

const seconds = (since: number) => (performance.now() - since) / 1000;

/**
 * Text to picture with Stable Diffusion 1.x and 2.x (diffusers/pipelines/stable_diffusion/pipeline_stable_diffusion.py;
 * Rombach et al. 2022). An instance is a function: `const { images } = await pipe('a red circle', { seed: 0 })`.
 * Calls that overlap run one after another. There is no safety checker.
 */
export class StableDiffusionPipeline extends Callable<Draw> {
  readonly tokenizer: Tokenizer;
  readonly textEncoder: CLIPTextModel;
  readonly unet: UNet2DConditionModel;
  readonly vae: AutoencoderKL;
  scheduler: SchedulerMixin;
  /** Name of the checkpoint, for the metadata of pictures. */
  modelName: string | undefined;
  private readonly turns = new Turns();

  /** @param components a tokenizer of transformers.js is taken, too */
  constructor(
    components: Omit<StableDiffusionComponents, 'tokenizer'> & { tokenizer: Tokenizer | TransformersJsTokenizer },
  ) {
    super();
    this.tokenizer = asTokenizer(components.tokenizer);
    this.textEncoder = components.textEncoder;
    this.unet = components.unet;
    this.vae = components.vae;
    this.scheduler = components.scheduler;
    bringUpToDate(this.scheduler);
  }

  /**
   * Loads a checkpoint in diffusers' layout.
   *
   * @param idOrDir a directory with model_index.json, or the id of a repository on the Hugging Face hub
   * @throws ConfigError, CheckpointError, StateDictError, DownloadError that say what is wrong with it
   */
  static async fromPretrained(idOrDir: string, options: FromPretrainedOptions = {}): Promise<StableDiffusionPipeline> {
    const { components, modelName } = await loadStableDiffusionComponents(
      idOrDir,
      withoutNulls('fromPretrained', options),
    );
    const pipe = new StableDiffusionPipeline(components);
    pipe.modelName = modelName;
    return pipe;
  }

  /**
   * Writes the pipeline into `dir` in diffusers' layout, whole or not at all; Python diffusers loads it. Other files there
   * stay, but for those of a checkpoint that it replaces.
   */
  savePretrained(dir: string, options: { dtype?: 'F32' | 'F16' | 'BF16'; variant?: string } = {}): Promise<void> {
    const fill = (staging: string) => saveStableDiffusionComponents(this.components, staging, options);
    return files.save(dir, fill, (path) => isReplacedBySaving(path, options.variant));
  }

  get components(): StableDiffusionComponents {
    const { tokenizer, textEncoder, unet, vae, scheduler } = this;
    return { tokenizer, textEncoder, unet, vae, scheduler };
  }

  /**
   * Computes attention in another way from now on, in the UNet, the VAE and the text encoder.
   *
   * @param setting a name of ATTENTION_NAMES, or an object with one and its options
   * @throws InvalidArgumentError for a name that is not known and options out of range
   */
  setAttention(setting: AttentionSetting): void {
    this.unet.setAttention(setting);
    this.vae.setAttention(setting);
    this.textEncoder.setAttention(setting);
  }

  /** How many attention layers each class computed in the last call: what 'auto' took is seen here. */
  get attentionStatistics(): Partial<Record<AttentionName, number>> {
    return attentionStatistics([...this.unet.attentionLayers, ...this.vae.attentionLayers]);
  }

  /**
   * Computes the attention of UNet and text encoder in slices, with less memory.
   *
   * @param sliceSize rows of batch x heads at a time, 'auto' for half of the heads, 'max' for the least memory
   */
  enableAttentionSlicing(sliceSize: SliceSize = 'auto'): void {
    this.unet.setAttentionSlice(sliceSize);
    this.textEncoder.setAttentionSlice(sliceSize);
  }

  /** Computes attention as before enableAttentionSlicing. */
  disableAttentionSlicing(): void {
    this.unet.setAttentionSlice(null);
    this.textEncoder.setAttentionSlice(null);
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
   * Keeps only the model at work in memory: text encoder, UNet, VAE, one at a time (stable-diffusion-webui's medvram). The
   * others are read from the checkpoint's files when their turn comes; pictures are identical.
   *
   * @throws InvalidArgumentError when a model was not loaded from files
   */
  async enableModelCpuOffload(): Promise<void> {
    for (const model of [this.textEncoder, this.unet, this.vae]) {
      await model.enableOffload();
    }
    this.unet.sequentialOffload = false;
  }

  /** The same, and of the UNet only the block at work (lowvram): least memory, every step reads all weights. */
  async enableSequentialCpuOffload(): Promise<void> {
    await this.enableModelCpuOffload();
    this.unet.sequentialOffload = true;
  }

  /** Reads all weights back into memory for good. */
  async disableCpuOffload(): Promise<void> {
    for (const model of [this.textEncoder, this.unet, this.vae]) {
      await model.disableOffload();
    }
    this.unet.sequentialOffload = false;
  }

  /** Frees every weight; the pipeline cannot be used afterwards. */
  dispose(): void {
    this.scheduler.dispose();
    for (const model of [this.textEncoder, this.unet, this.vae]) {
      model.dispose();
    }
  }

  /**
   * Draws pictures; the same as calling the pipeline itself.
   *
   * @param prompt one or several texts; undefined with `promptEmbeds`
   * @throws InvalidArgumentError for options that cannot be used, AbortedError through the signal
   */
  async run<O extends OutputType = 'image'>(
    prompt: string | readonly string[] | undefined,
    options: StableDiffusionOptions & { outputType?: O } = {},
  ): Promise<StableDiffusionPipelineOutput<Images<O>>> {
    const given = withoutNulls<StableDiffusionOptions>('StableDiffusionPipeline', options);
    const size = this.size(given);
    // the scheduler keeps the state of one run, so a second call waits for the first
    const result = this.turns.take(() => this.generate(prompt ?? undefined, given, size), given.signal);
    return result as Promise<StableDiffusionPipelineOutput<Images<O>>>;
  }

  private async generate(
    prompt: string | readonly string[] | undefined,
    options: StableDiffusionOptions,
    { height, width }: { height: number; width: number },
  ): Promise<StableDiffusionPipelineOutput<GeneratedImage[] | Tensor4D>> {
    const begin = performance.now();
    const {
      guidanceScale = 7.5,
      numImagesPerPrompt = 1,
      outputType = 'image',
      signal,
      clipSkip,
      promptSyntax,
    } = options;
    const { negativePrompt, promptEmbeds: givenEmbeds, negativePromptEmbeds } = options;
    checkAborted(signal, 'drawing');
    const guidance = guidanceScale > 1 && this.unet.parsed.timeCondProjDim === null;
    const encodeInputs = {
      prompt,
      negativePrompt,
      promptEmbeds: givenEmbeds,
      negativePromptEmbeds,
      numImagesPerPrompt,
      guidance,
      clipSkip,
      promptSyntax,
    };
    checkPrompts(encodeInputs);
    const pictures = promptCount(encodeInputs) * numImagesPerPrompt;
    const { scaleFactor } = this.vae;
    const shape = [pictures, height / scaleFactor, width / scaleFactor, this.unet.parsed.inChannels];
    checkLatentCount(shape);
    if (options.latents !== undefined) {
      checkLatents(options.latents, shape);
    }
    const noise = noiseSource(options, pictures);
    this.setTimesteps(options);
    restartTokenMerging(this);

    const promptEmbeds = await this.textEncoder.withWeights(() =>
      encodePrompt(this.tokenizer, this.textEncoder, encodeInputs),
    );
    const timings: Timings = { encode: 0, denoise: 0, decode: 0, total: 0, steps: [] };
    let latents: Tensor4D;
    try {
      await synchronize();
      timings.encode = seconds(begin);
      const denoiseBegin = performance.now();
      latents = await this.unet.withWeights(() => {
        const start = this.prepareLatents(shape, noise.generator, options.latents);
        const inputs = { latents: start, promptEmbeds, guidance, options, generator: noise.generator };
        return this.drain(inputs, options, timings.steps);
      });
      timings.denoise = seconds(denoiseBegin);
    } catch (error) {
      throw withPictureAdvice(error, scaleFactor);
    } finally {
      promptEmbeds.dispose();
    }
    const output = { seeds: noise.seeds, timings };
    if (outputType === 'latent') {
      timings.total = seconds(begin);
      return { images: latents, ...output };
    }
    const decodeBegin = performance.now();
    const record = {
      prompts: typeof prompt === 'string' ? [prompt] : (prompt ?? []),
      options,
      height,
      width,
      scheduler: this.scheduler,
      steps: this.scheduler.numInferenceSteps ?? timings.steps.length,
      seeds: noise.seeds,
      modelName: this.modelName,
    };
    let images: GeneratedImage[] | Tensor4D;
    try {
      checkAborted(signal, 'drawing');
      images = await this.vae.withWeights(() => this.decode(latents, outputType, record));
    } finally {
      latents.dispose();
    }
    timings.decode = seconds(decodeBegin);
    timings.total = seconds(begin);
    return { images, ...output };
  }

  /** Height and width of the pictures in pixels, checked with the other options. */
  private size(options: StableDiffusionOptions): { height: number; width: number } {
    const [rows, columns] = trainedSize(this.unet);
    const { height = rows * this.vae.scaleFactor, width = columns * this.vae.scaleFactor } = options;
    checkOptions(options, height, width, this.vae.scaleFactor);
    return { height, width };
  }

  private setTimesteps({ numInferenceSteps = 50, timesteps, sigmas }: StableDiffusionOptions): void {
    if (timesteps || sigmas) {
      this.scheduler.setTimesteps(null, { ...(timesteps ? { timesteps } : {}), ...(sigmas ? { sigmas } : {}) });
    } else {
      this.scheduler.setTimesteps(numInferenceSteps);
    }
  }

  /** Starting latents [B,h,w,4] at the scheduler's first noise level. */
  private prepareLatents(shape: number[], generator: NoiseSource['generator'], given?: Tensor4D): Tensor4D {
    return tf.tidy(() => tf.mul(given ?? randnTensor(shape, generator), this.scheduler.initNoiseSigma) as Tensor4D);
  }

  /** Runs the loop to its end, with the callback and the progress that the options ask for. */
  private async drain(
    inputs: DenoisingInputs,
    { callbackOnStepEnd, onProgress }: StableDiffusionOptions,
    steps: number[],
  ): Promise<Tensor4D> {
    const loop = this.denoise(inputs);
    const total = this.scheduler.timesteps.length;
    let decision: StepDecision;
    try {
      for (;;) {
        const begin = performance.now();
        const { done, value } = await loop.next(decision);
        if (done) {
          return value;
        }
        steps.push(seconds(begin));
        onProgress?.({ stage: 'denoise', step: value.step + 1, total, seconds: steps.at(-1)! });
        decision = await callbackOnStepEnd?.(value);
      }
    } finally {
      await loop.return(undefined as never);
    }
  }

  /**
   * The denoising loop, one step at a time, after `scheduler.setTimesteps`. Gives the state after every step; `next()`
   * takes a StepDecision, which may replace the latents or end the loop. Returns the final latents, which the caller owns.
   */
  async *denoise(inputs: DenoisingInputs): AsyncGenerator<DenoisingStep, Tensor4D, StepDecision> {
    const { promptEmbeds, guidance, generator } = inputs;
    const { guidanceScale = 7.5, guidanceRescale = 0, eta = 0, signal } = inputs.options;
    const prompts = new PromptState(promptEmbeds);
    const timestepCond = this.guidanceEmbedding(guidanceScale, promptEmbeds.shape[0]);
    const { scheduler } = this;
    const { timesteps } = scheduler;
    let latents: Tensor4D | null = inputs.latents;
    let scale = guidanceScale;
    try {
      for (const [step, timestep] of timesteps.entries()) {
        checkAborted(signal, 'drawing');
        const current: Tensor4D = latents;
        const sigma = noiseLevel(scheduler, step);
        const guided = guidance && scale > 1;
        const both = guided && !skipsUnconditional(inputs.options, step, timesteps.length, sigma);
        const input = tf.tidy(() =>
          scheduler.scaleModelInput(both ? tf.concat([current, current], 0) : current, timestep),
        );
        const { embeds, cache } = guidance && !both ? prompts.conditional : prompts.all;
        const predicted = await this.predict(input as Tensor4D, timestep, embeds, { cache, timestepCond });
        const next = tf.tidy(() => {
          const noise = both ? classifierFreeGuidance(predicted, scale, guidanceRescale) : predicted;
          return scheduler.step(noise, timestep, current, { generator, eta }).prevSample as Tensor4D;
        });
        tf.dispose([predicted, current]);
        latents = next;
        await synchronize();
        await yieldToEventLoop();
        const decision: StepDecision = yield { step, timestep, latents };
        const { shape } = latents;
        if (decision?.latents && decision.latents !== latents) {
          latents.dispose();
          latents = decision.latents;
        }
        if (decision?.promptEmbeds) {
          prompts.replace(decision.promptEmbeds);
        }
        checkLatents(latents, shape);
        scale = nextGuidanceScale(decision, scale);
        if (decision?.stop) {
          break;
        }
      }
      const result: Tensor4D = latents;
      latents = null;
      return result;
    } finally {
      prompts.dispose();
      tf.dispose([timestepCond, latents] as unknown as Tensor[]);
      scheduler.dispose();
    }
  }

  /** The UNet's prediction for an input, which is disposed of. */
  private async predict(input: Tensor4D, ...rest: [number, tf.Tensor3D, UNetInputs]): Promise<Tensor4D> {
    try {
      return await this.unet.predict(input, ...rest);
    } finally {
      input.dispose();
    }
  }

  /** What a guidance-distilled UNet is told of the guidance scale, [B, time_cond_proj_dim]. */
  private guidanceEmbedding(guidanceScale: number, batch: number): tf.Tensor2D | undefined {
    const dim = this.unet.parsed.timeCondProjDim;
    return dim === null
      ? undefined
      : tf.tidy(() => timestepEmbedding(tf.fill([batch], (guidanceScale - 1) * 1000), { dim }));
  }

  /** Latents to pictures. */
  private async decode(
    latents: Tensor4D,
    outputType: OutputType,
    record: GenerationRecord,
  ): Promise<GeneratedImage[] | Tensor4D> {
    const pixels = tf.tidy(() => {
      const decoded = this.vae.decode(tf.div(latents, this.vae.parsed.scalingFactor));
      return tf.clipByValue(tf.add(tf.div(decoded, 2), 0.5), 0, 1) as Tensor4D;
    });
    if (outputType === 'tensor') {
      return pixels;
    }
    const [batch, height, width, channels] = pixels.shape;
    const data = await pixels.data().finally(() => pixels.dispose());
    const size = height * width * channels;
    return Array.from({ length: batch }, (_, i) =>
      GeneratedImage.fromFloats(
        data.subarray(i * size, (i + 1) * size),
        width,
        height,
        imageMetadata({ ...record, height, width }, i, batch),
      ),
    );
  }
}
