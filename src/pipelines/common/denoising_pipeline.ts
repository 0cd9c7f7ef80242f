import type { Tensor, Tensor2D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { restartTokenMerging } from '../../attention/index.js';
import { synchronize } from '../../backends/traits.js';
import type { GeneratedImage } from '../../images/index.js';
import type { InputFile } from '../../images/read_image.js';
import type { Autoencoder, DownPathResiduals, Model, UNet2DConditionModel } from '../../models/index.js';
import { timestepEmbedding } from '../../ops/index.js';
import type { SchedulerMixin } from '../../schedulers/index.js';
import { checkAborted } from '../../utils/check.js';
import type { Prompt } from './callable.js';
import type { Branch, Conditioning, ConditioningTensors, Conditions } from './conditioning.js';
import { type DenoisingLoop, denoisingLoop, type LoopStep, runLoop } from './denoising_loop.js';
import { DiffusionPipeline } from './diffusion_pipeline.js';
import {
  type GenerationRecord,
  imageMetadata,
  type PipelineSettings,
  pipelineSettings,
  unrecorded,
} from './generation_metadata.js';
import {
  type CombineBranches,
  classifierFreeGuidance,
  GUIDANCE_CHECKS,
  type GuidanceOptions,
  GuidedDenoiser,
} from './guidance.js';
import { withPictureAdvice } from './memory_advice.js';
import { type NoiseSource, noiseSource } from './noise.js';
import { GENERATION_CHECKS, type GenerationOptions, NUMBERS, type Output, SHARE, type Timings } from './options.js';
import { toImages } from './output.js';
import { previewer } from './preview.js';
import { applySchedule } from './schedule.js';

/** The components that a denoising pipeline has beside those that read its prompt. */
export interface DenoisingComponents {
  scheduler: SchedulerMixin;
  unet: UNet2DConditionModel;
  vae: Autoencoder;
}

/** Options that the calls of all denoising pipelines have. */
export interface DenoisingOptions extends GenerationOptions, GuidanceOptions {
  negativePrompt?: string | readonly string[];
  /** Own noise levels, descending, instead of a number of steps; for schedulers that take them. */
  sigmas?: readonly number[];
  /** Noise of DDIM's steps, 0 to 1. Default 0. */
  eta?: number;
}

export const DENOISING_CHECKS = { ...GENERATION_CHECKS, ...GUIDANCE_CHECKS, sigmas: NUMBERS, eta: SHARE } as const;

/** The steps of a schedule that are taken: indices into the scheduler's timesteps. */
export interface StepRange {
  begin: number;
  /** One after the last. Default: all that there are. */
  end?: number;
}

/** What a call is about, before anything is computed. */
export interface Plan extends StepRange {
  pictures: number;
  noise: NoiseSource;
  guidanceScale: number;
  /** Whether other branches than the conditional one are computed. */
  guidance: boolean;
  /** Calls of the scheduler's `step` in all. */
  total: number;
  settings: PipelineSettings;
  /** Files that the call has read, by the option that they came by. */
  inputs: Record<string, InputFile[]>;
  /** What has changed the pictures and is in no metadata. */
  unrecorded: Set<string>;
}

/** Where the denoising begins. */
export interface Start {
  /** [B,h,w,C] at the noise level of the first step; owned by the loop. */
  latents: Tensor4D;
  /** What becomes of the latents after each step (inpainting). */
  mix?: DenoisingLoop<Tensor4D>['mix'];
  /** What a branch is told beside the text: new tensors. */
  conditions?: (branch: Branch) => Partial<ConditioningTensors>;
  /** What other networks add to the UNet's states at a step: new tensors. */
  residuals?: (
    latents: Tensor4D,
    timestep: number,
    conditions: Conditions,
    step: LoopStep,
  ) => Promise<DownPathResiduals>;
  /** Models beside the UNet that work during the loop. */
  models?: readonly Model[];
  /** What the functions here compute with; freed after the loop. */
  owned?: Tensor[];
  /** What becomes of each picture in the end. */
  finish?: (image: GeneratedImage) => GeneratedImage;
}

/** How a pipeline differs from the others: defaults of its calls. */
export interface CallDefaults {
  numInferenceSteps: number;
  guidanceScale: number;
  strength?: number;
}

/** Runs `f` with the weights of all these models in memory. */
function withWeights<T>([first, ...others]: readonly Model[], f: () => Promise<T>): Promise<T> {
  return first ? first.withWeights(() => withWeights(others, f)) : f();
}

const seconds = (since: number) => (performance.now() - since) / 1000;

/**
 * What pipelines with a UNet share: plan, text, start, guided loop, decoder, metadata. A pipeline says how its prompt is
 * encoded, which steps are taken and where its latents begin.
 */
export abstract class DenoisingPipeline<
  C extends DenoisingComponents,
  O extends DenoisingOptions,
> extends DiffusionPipeline<C, O> {
  protected readonly defaults: CallDefaults = { numInferenceSteps: 50, guidanceScale: 7.5 };

  get unet(): UNet2DConditionModel {
    return this.components.unet;
  }

  get vae(): Autoencoder {
    return this.components.vae;
  }

  /**
   * Number of prompts.
   *
   * @throws InvalidArgumentError for texts and embeddings that do not go together
   */
  protected abstract countPrompts(prompt: Prompt, options: O): number;

  /** The text, for the branches that the plan needs. */
  protected abstract condition(prompt: Prompt, plan: Plan, options: O): Promise<Conditioning>;

  protected abstract start(plan: Plan, options: O): Start | Promise<Start>;

  /** Checks what only the pipeline knows of, before anything is computed. */
  protected check(_plan: Plan, _options: O): void | Promise<void> {}

  /** Lays out the schedule. */
  protected schedule(options: O): StepRange {
    const { numInferenceSteps = this.defaults.numInferenceSteps, timesteps, sigmas } = options;
    return { begin: applySchedule(this.className, this.scheduler, { numInferenceSteps, timesteps, sigmas }) };
  }

  /** Whether a call is guided; models that take the guidance scale as an input never are. */
  protected isGuided({ guidanceScale = this.defaults.guidanceScale }: O): boolean {
    return guidanceScale > 1 && this.unet.parsed.timeCondProjDim === null;
  }

  /** How the predictions of several branches become one. */
  protected combine(_options: O): CombineBranches<Tensor4D> {
    return classifierFreeGuidance;
  }

  /** What a branch is told beside the text: new tensors. */
  protected conditionsOf(
    branch: Branch,
    plan: Plan,
    start: Start,
    _options: O,
    _text: ConditioningTensors,
  ): Partial<ConditioningTensors> {
    const timestepCond = this.guidanceEmbedding(plan);
    return { ...start.conditions?.(branch), ...(timestepCond && { timestepCond }) };
  }

  /** What a guidance-distilled UNet is told of the guidance scale, [B, time_cond_proj_dim]. */
  private guidanceEmbedding({ guidanceScale, pictures }: Plan): Tensor2D | undefined {
    const dim = this.unet.parsed.timeCondProjDim;
    return dim === null
      ? undefined
      : tf.tidy(() => timestepEmbedding(tf.fill([pictures], (guidanceScale - 1) * 1000), { dim }));
  }

  /** The UNet's prediction, with all that the conditions hold. */
  private async predict(
    latents: Tensor4D,
    timestep: number,
    conditions: Conditions,
    step: LoopStep,
    { residuals }: Start,
  ): Promise<Tensor4D> {
    const { encoderHiddenStates, cache, timestepCond, pooled, timeIds, inputChannels } = conditions;
    const addedCond = pooled && timeIds && { textEmbeds: pooled, timeIds };
    const added = (await residuals?.(latents, timestep, conditions, step)) ?? {};
    const input = inputChannels ? tf.concat<Tensor4D>([latents, inputChannels as Tensor4D], 3) : latents;
    try {
      const inputs = { cache, timestepCond, addedCond, ...added };
      return await this.unet.predict(input, timestep, encoderHiddenStates, inputs);
    } finally {
      tf.dispose(Object.values(added as DownPathResiduals).flat() as Tensor[]);
      tf.dispose(input === latents ? [] : input);
    }
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
    const { latents, finish } = await this.denoise(conditioning, plan, options, timings.steps).finally(() =>
      conditioning.dispose(),
    );
    timings.denoise = seconds(begin) - timings.encode;
    const drawn = await this.decode(latents, prompt, options, plan, timings.steps.length);
    const images = finish && Array.isArray(drawn) ? drawn.map(finish) : drawn;
    timings.decode = seconds(begin) - timings.encode - timings.denoise;
    timings.total = seconds(begin);
    return { images, seeds: plan.noise.seeds, timings };
  }

  private plan(prompt: Prompt, options: O): Plan {
    const { guidanceScale = this.defaults.guidanceScale, numImagesPerPrompt = 1 } = options;
    const pictures = this.countPrompts(prompt, options) * numImagesPerPrompt;
    const noise = noiseSource(this.className, options, pictures);
    const range = this.schedule(options);
    restartTokenMerging(this);
    const { begin, end = this.scheduler.timesteps.length } = range;
    const settings = pipelineSettings(this);
    const rest = { settings, inputs: {}, unrecorded: unrecorded(this, options, noise.fresh) };
    return { ...range, pictures, noise, guidanceScale, guidance: this.isGuided(options), total: end - begin, ...rest };
  }

  private async denoise(
    conditioning: Conditioning,
    plan: Plan,
    options: O,
    steps: number[],
  ): Promise<Pick<Start, 'latents' | 'finish'>> {
    const { unet, scheduler, className: where } = this;
    const { begin, end, noise, guidance, guidanceScale } = plan;
    const { eta, signal } = options;
    const drawPreview = previewer(this, options.preview);
    const start = await this.start(plan, options);
    const { latents, mix, finish, models = [], owned = [] } = start;
    const combine = this.combine(options);
    const denoiser = new GuidedDenoiser<Tensor4D>((...call) => this.predict(...call, start), conditioning, {
      ...options,
      guidanceScale: guidance ? guidanceScale : 1,
      ...{ combine, where },
    });
    const loop = { scheduler, denoiser, latents, begin, end, mix, generator: noise.generator, eta, signal, where };
    try {
      conditioning.extend((branch, text) => this.conditionsOf(branch, plan, start, options, text));
      const watched = { ...options, drawPreview, callbackOnStepEnd: this.watched(plan, options) };
      const run = () => runLoop(denoisingLoop(loop), watched, steps);
      return { latents: await withWeights([unet, ...models], run), finish };
    } catch (error) {
      tf.dispose(latents.isDisposed ? [] : latents);
      throw withPictureAdvice(error, this.vae.scaleFactor);
    } finally {
      tf.dispose(owned);
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
  private decode(
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
