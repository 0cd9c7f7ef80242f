import type { Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError, OutOfMemoryError } from '../../errors.js';
import { TorchGenerator } from '../../utils/torch_generator.js';
import type { PromptSyntax } from '../stable_diffusion/encode_prompt.js';
import type { NegativeGuidanceOptions } from './negative_guidance.js';
import { describe } from './pipeline_utils.js';

/** State of the denoising loop after a step. */
export interface DenoisingStep {
  /** 0 for the first step. */
  step: number;
  timestep: number;
  /** [B, height / 8, width / 8, 4]; the pipeline's, to be cloned if it shall outlive the callback. */
  latents: Tensor4D;
}

/** What a callback may ask for. The pipeline takes tensors over and disposes of them. */
export interface StepChanges {
  /** Other latents to go on with, of the same shape. */
  latents?: Tensor4D;
  /** Other text embeddings, of the shape that the loop has them in: both halves, the negative one first, or one half. */
  promptEmbeds?: Tensor3D;
  /** Another weight of the prompt from here on; 1 or less turns guidance off, which saves half of the work. */
  guidanceScale?: number;
  /** Ends the loop here. */
  stop?: boolean;
}

// biome-ignore lint/suspicious/noConfusingVoidType: a callback that returns nothing is the usual one
export type StepDecision = StepChanges | undefined | void;

export interface DenoisingProgress {
  stage: 'denoise';
  /** Steps done, and in all. */
  step: number;
  total: number;
  /** Seconds that the last step took. */
  seconds: number;
}

/** diffusers' options of StableDiffusionPipeline.__call__, in camelCase. */
export interface StableDiffusionOptions extends NegativeGuidanceOptions {
  /** What the picture shall not show; one for all prompts or one each. Used with guidanceScale > 1. */
  negativePrompt?: string | readonly string[];
  /** Pixels, a multiple of the VAE's scale factor (8). Default: what the model was trained on. */
  height?: number;
  width?: number;
  /** Default 50. */
  numInferenceSteps?: number;
  /** Own timesteps, descending, instead of a number of steps; for schedulers that take them. */
  timesteps?: readonly number[];
  /** Own noise levels, descending, instead of a number of steps; for schedulers that take them. */
  sigmas?: readonly number[];
  /** Weight of the prompt; 1 or less turns guidance off. Default 7.5. */
  guidanceScale?: number;
  /** 0 to 1, counters over-exposure of guided pictures (Lin et al. 2023). Default 0. */
  guidanceRescale?: number;
  /** Pictures per prompt. Default 1. */
  numImagesPerPrompt?: number;
  /** Noise of DDIM's steps, 0 to 1. Default 0. */
  eta?: number;
  /** Seed of one generator for the batch, or one seed for each picture. Random when neither seed nor generator is given. */
  seed?: number | bigint | readonly (number | bigint)[];
  /** Instead of a seed: one generator for the batch, or one for each picture. */
  generator?: TorchGenerator | readonly TorchGenerator[];
  /** Starting noise of variance 1, [B, height / 8, width / 8, 4], instead of what the generator would draw. It stays the caller's. */
  latents?: Tensor4D;
  /** Text embeddings instead of prompts, [prompts, tokens, D]. They stay the caller's. */
  promptEmbeds?: Tensor3D;
  negativePromptEmbeds?: Tensor3D;
  /** Layers of the text encoder to leave out at the end, for the prompt (with 'a1111' for the negative prompt, too). */
  clipSkip?: number;
  /** How prompts are read: 'diffusers' (default) takes them as they are, cut at 77 tokens; 'a1111' as the web UI does. */
  promptSyntax?: PromptSyntax;
  /** 'image': GeneratedImage objects (default); 'tensor': [B,H,W,3] in 0..1; 'latent': [B,h,w,4] before the VAE. */
  outputType?: OutputType;
  /** Called after every step; may return what shall change or ask to stop. It cannot call the same pipeline. */
  callbackOnStepEnd?: (step: DenoisingStep) => StepDecision | Promise<StepDecision>;
  /** Ends the call with an AbortedError: while it waits for its turn, before the next step, or before the decoder. */
  signal?: AbortSignal;
  onProgress?: (progress: DenoisingProgress) => void;
}

export type OutputType = 'image' | 'tensor' | 'latent';

/** Where the noise comes from, and the seeds that are worth recording. */
export interface NoiseSource {
  generator: TorchGenerator | TorchGenerator[];
  /** One for the batch or one for each picture; none for generators that the caller has already drawn from. */
  seeds: bigint[];
}

/** @throws InvalidArgumentError when there is neither one seed or generator for all nor one for each picture */
export function noiseSource(options: StableDiffusionOptions, pictures: number): NoiseSource {
  const { seed, generator } = options;
  if (seed !== undefined && generator !== undefined) {
    throw new InvalidArgumentError('[StableDiffusionPipeline] give either seed or generator, not both');
  }
  const wrong = [generator ?? []].flat().find((g: unknown) => !(g instanceof TorchGenerator));
  if (wrong !== undefined) {
    throw new InvalidArgumentError(
      `[StableDiffusionPipeline] generator must be a TorchGenerator or a list of them, got ${describe(wrong)}`,
    );
  }
  const many = Array.isArray(generator) ? generator : Array.isArray(seed) ? seed : null;
  if (many && many.length !== pictures) {
    throw new InvalidArgumentError(
      `[StableDiffusionPipeline] expects one seed or generator for all, or one for each of the ${pictures} pictures, ` +
        `got ${many.length}`,
    );
  }
  const source =
    generator !== undefined
      ? (generator as TorchGenerator | TorchGenerator[])
      : Array.isArray(seed)
        ? (seed as (number | bigint)[]).map((s) => new TorchGenerator(s))
        : new TorchGenerator((seed as number | bigint | undefined) ?? randomSeed());
  return { generator: source, seeds: [source].flat().map((g) => g.initialSeed()) };
}

/** A seed that cannot be foreseen, short enough to be typed again. */
export function randomSeed(): number {
  return Math.floor(Math.random() * 2 ** 32);
}

const isCount = (value: unknown) => Number.isInteger(value) && (value as number) >= 1;
const isWhole = (value: unknown) => Number.isInteger(value) && (value as number) >= 0;
const isShare = (value: unknown) => Number.isFinite(value) && (value as number) >= 0 && (value as number) <= 1;
const isFunction = (value: unknown) => typeof value === 'function';
const isList = (value: unknown) =>
  (Array.isArray(value) || ArrayBuffer.isView(value)) && Array.from(value as ArrayLike<unknown>).every(Number.isFinite);
const oneOf =
  (...choices: unknown[]) =>
  (value: unknown) =>
    choices.includes(value);

/** What each option must be, and how that is said. */
const CHECKS: { [K in keyof StableDiffusionOptions]?: [check: (value: unknown) => boolean, expected: string] } = {
  numInferenceSteps: [isCount, 'a whole number of at least 1'],
  numImagesPerPrompt: [isCount, 'a whole number of at least 1'],
  timesteps: [isList, 'a list of numbers'],
  sigmas: [isList, 'a list of numbers'],
  guidanceScale: [Number.isFinite, 'a number'],
  guidanceRescale: [Number.isFinite, 'a number'],
  eta: [isShare, 'a number from 0 to 1'],
  clipSkip: [isWhole, 'a whole number of layers'],
  skipEarlyCond: [isShare, 'a number from 0 to 1'],
  negativeGuidanceMinSigma: [(value) => (value as number) >= 0, 'a noise level of at least 0'],
  negativeGuidanceSteps: [oneOf('alternate', 'all'), "'alternate' or 'all'"],
  promptSyntax: [oneOf('diffusers', 'a1111'), "'diffusers' or 'a1111'"],
  outputType: [oneOf('image', 'tensor', 'latent'), "'image', 'tensor' or 'latent'"],
  callbackOnStepEnd: [isFunction, 'a function'],
  onProgress: [isFunction, 'a function'],
  signal: [(value) => typeof (value as AbortSignal).aborted === 'boolean', 'an AbortSignal'],
};

/**
 * Checks what can be checked before any work is done.
 *
 * @param multiple pixels per latent
 * @throws InvalidArgumentError that says what was expected
 */
export function checkOptions(options: StableDiffusionOptions, height: number, width: number, multiple: number): void {
  const expect = (ok: boolean, what: string, got: unknown) => {
    if (!ok) {
      throw new InvalidArgumentError(`[StableDiffusionPipeline] ${what}, got ${describe(got)}`);
    }
  };
  for (const [name, size] of Object.entries({ height, width })) {
    const near = Math.max(multiple, Math.round(Number(size) / multiple) * multiple) || multiple;
    expect(
      isCount(size) && size % multiple === 0,
      `${name} must be a positive multiple of ${multiple} (for instance ${near})`,
      size,
    );
  }
  for (const [name, [check, expected]] of Object.entries(CHECKS)) {
    const value = options[name as keyof StableDiffusionOptions];
    expect(value === undefined || check(value), `${name} must be ${expected}`, value);
  }
}

/**
 * The guidance scale to go on with.
 *
 * @throws InvalidArgumentError when the callback asks for one that is no number
 */
export function nextGuidanceScale(decision: StepDecision, scale: number): number {
  const { guidanceScale = scale } = decision ?? {};
  if (!Number.isFinite(guidanceScale)) {
    throw new InvalidArgumentError(
      `[StableDiffusionPipeline] the callback's guidanceScale must be a number, got ${describe(guidanceScale)}`,
    );
  }
  return guidanceScale;
}

/** A gigabyte of latents stands for pictures of gigapixels, whose layers no tensor can hold. */
const MOST_LATENTS = 2 ** 28;

/** @throws OutOfMemoryError for latents [B,h,w,4] whose pictures could not be computed anywhere */
export function checkLatentCount(shape: readonly number[]): void {
  if (shape.reduce((a, b) => a * b, 1) > MOST_LATENTS) {
    throw new OutOfMemoryError(
      `[StableDiffusionPipeline] latents [${shape}] are too many for any memory; ask for smaller or fewer pictures`,
    );
  }
}

/** @throws InvalidArgumentError unless `latents` are a tensor of that shape */
export function checkLatents(latents: unknown, shape: readonly number[]): asserts latents is Tensor4D {
  if (!(latents instanceof tf.Tensor) || latents.isDisposed || `${latents.shape}` !== `${shape}`) {
    throw new InvalidArgumentError(
      `[StableDiffusionPipeline] latents must be a tensor [${shape}], got ${describe(latents)}`,
    );
  }
}
