import type { Tensor2D, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { restartTokenMerging } from '../../attention/index.js';
import { synchronize } from '../../backends/traits.js';
import type { GeneratedImage } from '../../images/index.js';
import type { InputFile } from '../../images/read_image.js';
import type { Autoencoder, CLIPTextModel, UNet2DConditionModel } from '../../models/index.js';
import { timestepEmbedding } from '../../ops/index.js';
import { asTokenizer, type Tokenizer } from '../../tokenizers/index.js';
import { checkAborted, is } from '../../utils/check.js';
import type { Prompt } from '../common/callable.js';
import { Conditioning } from '../common/conditioning.js';
import { denoisingLoop, runLoop } from '../common/denoising_loop.js';
import { DiffusionPipeline } from '../common/diffusion_pipeline.js';
import {
  type GenerationRecord,
  imageMetadata,
  type PipelineSettings,
  pipelineSettings,
  unrecorded,
} from '../common/generation_metadata.js';
import { GUIDANCE_CHECKS, type GuidanceOptions, GuidedDenoiser } from '../common/guidance.js';
import { withPictureAdvice } from '../common/memory_advice.js';
import { type NoiseSource, noiseSource } from '../common/noise.js';
import {
  type Checks,
  COUNT,
  checkOptions,
  GENERATION_CHECKS,
  type GenerationOptions,
  NUMBERS,
  type Output,
  SHARE,
  type Timings,
  withoutNulls,
} from '../common/options.js';
import { toImages } from '../common/output.js';
import { applySchedule } from '../common/schedule.js';
import { checkPrompts, encodePrompt, PROMPT_CHECKS, type PromptOptions, promptCount } from './encode_prompt.js';
import { fixOutdatedConfig } from './outdated_configs.js';
import {
  checkFit,
  STABLE_DIFFUSION_COMPONENTS,
  type StableDiffusionComponents,
} from './stable_diffusion_components.js';

/** Options that the calls of all pipelines of Stable Diffusion 1.x and 2.x have. */
export interface StableDiffusionBaseOptions extends GenerationOptions, PromptOptions, GuidanceOptions {
  /** Own noise levels, descending, instead of a number of steps; for schedulers that take them. */
  sigmas?: readonly number[];
  /** Noise of DDIM's steps, 0 to 1. Default 0. */
  eta?: number;
}

export const STABLE_DIFFUSION_CHECKS = {
  ...GENERATION_CHECKS,
  ...PROMPT_CHECKS,
  ...GUIDANCE_CHECKS,
  sigmas: NUMBERS,
  eta: SHARE,
} as const;

/** Options of `encodePrompt`. */
export interface EncodePromptOptions
  extends Pick<PromptOptions, 'negativePrompt' | 'clipSkip' | 'promptSyntax'>,
    Pick<GenerationOptions, 'numImagesPerPrompt'> {
  /** Whether the negative prompt is encoded, too. Default true. */
  doClassifierFreeGuidance?: boolean;
}

const ENCODE_PROMPT_CHECKS: Checks<EncodePromptOptions> = {
  negativePrompt: PROMPT_CHECKS.negativePrompt,
  clipSkip: PROMPT_CHECKS.clipSkip,
  promptSyntax: PROMPT_CHECKS.promptSyntax,
  numImagesPerPrompt: COUNT,
  doClassifierFreeGuidance: [is.boolean, 'true or false'],
};

/** What a call is about, before anything is computed. */
export interface Plan {
  pictures: number;
  noise: NoiseSource;
  guidanceScale: number;
  /** Whether the unconditional branch is computed. */
  guidance: boolean;
  /** Index into the scheduler's timesteps of the first step. */
  begin: number;
  /** Calls of the scheduler's `step` in all. */
  total: number;
  settings: PipelineSettings;
  /** Files that the call has read. */
  inputs: InputFile[];
  /** What has changed the pictures and is in no metadata. */
  unrecorded: Set<string>;
}

/** How a pipeline differs from the others: defaults of its calls, and the part of the schedule that it takes. */
export interface CallDefaults {
  numInferenceSteps: number;
  guidanceScale: number;
  strength?: number;
}

const seconds = (since: number) => (performance.now() - since) / 1000;

/**
 * What the pipelines of Stable Diffusion 1.x and 2.x share (Rombach et al. 2022): text, guidance, loop, decoder. A
 * pipeline says where its latents begin. There is no safety checker.
 */
export abstract class StableDiffusionBase<O extends StableDiffusionBaseOptions> extends DiffusionPipeline<
  StableDiffusionComponents,
  O
> {
  static readonly componentTable = STABLE_DIFFUSION_COMPONENTS;
  private readonly ownTokenizer: Tokenizer;
  protected readonly defaults: CallDefaults = { numInferenceSteps: 50, guidanceScale: 7.5 };

  /**
   * @param Pipeline the class that saving and messages name
   * @throws InvalidArgumentError for components of other classes, ConfigError for such that cannot work together
   */
  constructor(components: StableDiffusionComponents, Pipeline: { className: string }) {
    super(components, STABLE_DIFFUSION_COMPONENTS, Pipeline.className);
    this.ownTokenizer = asTokenizer(components.tokenizer);
    checkFit(components);
    fixOutdatedConfig(components.scheduler);
  }

  get tokenizer(): Tokenizer {
    return this.ownTokenizer;
  }

  get textEncoder(): CLIPTextModel {
    return this.components.textEncoder;
  }

  get unet(): UNet2DConditionModel {
    return this.components.unet;
  }

  get vae(): Autoencoder {
    return this.components.vae;
  }

  /**
   * Text embeddings of prompts, for `promptEmbeds` and `negativePromptEmbeds` of calls.
   *
   * @param prompt one or several texts
   * @returns [B, tokens, D] each, which the caller owns; B counts `numImagesPerPrompt` pictures of each prompt
   * @throws InvalidArgumentError for options that cannot be used
   */
  async encodePrompt(
    prompt: Prompt,
    options: EncodePromptOptions = {},
  ): Promise<{ promptEmbeds: Tensor3D; negativePromptEmbeds: Tensor3D | undefined }> {
    const where = `${this.className}.encodePrompt`;
    const given = withoutNulls(where, options);
    checkOptions(where, options ?? {}, ENCODE_PROMPT_CHECKS);
    const { numImagesPerPrompt = 1, doClassifierFreeGuidance: guidance = true, ...texts } = given;
    const inputs = { ...texts, prompt, numImagesPerPrompt, guidance };
    checkPrompts(this.className, inputs);
    const { conditional, unconditional } = await this.textEncoder.withWeights(() =>
      encodePrompt(this.className, this.tokenizer, this.textEncoder, inputs),
    );
    return {
      promptEmbeds: conditional!.encoderHiddenStates,
      negativePromptEmbeds: unconditional?.encoderHiddenStates,
    };
  }

  /** Starting latents [B,h,w,C] at the noise level of the first step; owned by the loop. */
  protected abstract start(plan: Plan, options: O): Tensor4D | Promise<Tensor4D>;

  /** Checks what only the pipeline knows of, before anything is computed. */
  protected check(_plan: Plan, _options: O): void | Promise<void> {}

  /** Lays out the schedule; gives the index of the first step. */
  protected schedule(options: O): number {
    const { numInferenceSteps = this.defaults.numInferenceSteps, timesteps, sigmas } = options;
    return applySchedule(this.className, this.scheduler, { numInferenceSteps, timesteps, sigmas });
  }

  protected async generate(prompt: Prompt, options: O): Promise<Output<GeneratedImage[] | Tensor4D>> {
    const begin = performance.now();
    checkAborted(options.signal, 'drawing');
    const plan = this.plan(prompt, options);
    await this.check(plan, options);
    const timings: Timings = { encode: 0, denoise: 0, decode: 0, total: 0, steps: [] };
    const conditioning = await this.condition(prompt, plan, options);
    await synchronize();
    timings.encode = seconds(begin);
    const latents = await this.denoise(conditioning, plan, options, timings.steps).finally(() =>
      conditioning.dispose(),
    );
    timings.denoise = seconds(begin) - timings.encode;
    const images = await this.finish(latents, prompt, options, plan, timings.steps.length);
    timings.decode = seconds(begin) - timings.encode - timings.denoise;
    timings.total = seconds(begin);
    return { images, seeds: plan.noise.seeds, timings };
  }

  private plan(prompt: Prompt, options: O): Plan {
    const { guidanceScale = this.defaults.guidanceScale, numImagesPerPrompt = 1 } = options;
    const guidance = guidanceScale > 1 && this.unet.parsed.timeCondProjDim === null;
    const inputs = { ...options, prompt, numImagesPerPrompt, guidance };
    checkPrompts(this.className, inputs);
    const pictures = promptCount(inputs) * numImagesPerPrompt;
    const noise = noiseSource(this.className, options, pictures);
    const begin = this.schedule(options);
    restartTokenMerging(this);
    const total = this.scheduler.timesteps.length - begin;
    const settings = pipelineSettings(this);
    const rest = { settings, inputs: [], unrecorded: unrecorded(this, options, noise.fresh) };
    return { pictures, noise, guidanceScale, guidance, begin, total, ...rest };
  }

  private condition(prompt: Prompt, plan: Plan, options: O): Promise<Conditioning> {
    const { numImagesPerPrompt = 1 } = options;
    const inputs = { ...options, prompt, numImagesPerPrompt, guidance: plan.guidance };
    return this.textEncoder.withWeights(() => {
      const branches = encodePrompt(this.className, this.tokenizer, this.textEncoder, inputs);
      for (const tensors of Object.values(branches)) {
        const timestepCond = this.guidanceEmbedding(plan);
        Object.assign(tensors, timestepCond && { timestepCond });
      }
      return new Conditioning(branches);
    });
  }

  /** What a guidance-distilled UNet is told of the guidance scale, [B, time_cond_proj_dim]. */
  private guidanceEmbedding({ guidanceScale, pictures }: Plan): Tensor2D | undefined {
    const dim = this.unet.parsed.timeCondProjDim;
    return dim === null
      ? undefined
      : tf.tidy(() => timestepEmbedding(tf.fill([pictures], (guidanceScale - 1) * 1000), { dim }));
  }

  private async denoise(conditioning: Conditioning, plan: Plan, options: O, steps: number[]): Promise<Tensor4D> {
    const { unet, scheduler, className: where } = this;
    const { eta, signal } = options;
    const denoiser = new GuidedDenoiser<Tensor4D>(
      (x, t, { encoderHiddenStates, cache, timestepCond }) =>
        unet.predict(x, t, encoderHiddenStates, { cache, timestepCond }),
      conditioning,
      { ...options, guidanceScale: plan.guidance ? plan.guidanceScale : 1, where },
    );
    const latents = await this.start(plan, options);
    const loop = {
      scheduler,
      denoiser,
      latents,
      begin: plan.begin,
      generator: plan.noise.generator,
      eta,
      signal,
      where,
    };
    try {
      const watched = { ...options, callbackOnStepEnd: this.watched(plan, options) };
      return await unet.withWeights(() => runLoop(denoisingLoop(loop), watched, steps));
    } catch (error) {
      throw withPictureAdvice(error, this.vae.scaleFactor);
    }
  }

  /** The callback, whose changes are noted: no metadata can tell them. */
  private watched(plan: Plan, { callbackOnStepEnd: callback }: O): O['callbackOnStepEnd'] {
    return (
      callback &&
      (async (step) => {
        const decision = await callback(step);
        const { latents, promptEmbeds, guidanceScale } = decision ?? {};
        if ((latents && latents !== step.latents) || promptEmbeds || (guidanceScale ?? undefined) !== undefined) {
          plan.unrecorded.add('callbackOnStepEnd');
        }
        return decision;
      })
    );
  }

  /** Takes the latents over. */
  private finish(
    latents: Tensor4D,
    prompt: Prompt,
    options: O,
    plan: Plan,
    taken: number,
  ): Promise<GeneratedImage[] | Tensor4D> {
    const record: GenerationRecord = {
      prompts: [prompt ?? []].flat(),
      options: {
        ...options,
        guidanceScale: plan.guidanceScale,
        strength: (options as { strength?: number }).strength ?? this.defaults.strength,
      },
      pictures: plan.pictures,
      seeds: plan.noise.fresh ? plan.noise.seeds : [],
      taken: taken < plan.total ? taken : undefined,
      settings: plan.settings,
      inputs: plan.inputs,
      unrecorded: [...plan.unrecorded],
      modelName: this.modelName,
    };
    return toImages(this.vae, latents, options, (index, size) => imageMetadata(record, index, size));
  }
}
