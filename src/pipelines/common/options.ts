import type { Tensor, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { GeneratedImage } from '../../images/index.js';
import { Autoencoder } from '../../models/index.js';
import { checkNames, expectThat, invalid, is, oneOf } from '../../utils/check.js';
import { TorchGenerator } from '../../utils/torch_generator.js';

/** 'image': GeneratedImage objects; 'tensor': [B,H,W,3] in 0..1; 'latent': the latents before the VAE. */
export type OutputType = 'image' | 'tensor' | 'latent';

/** What a pipeline gives for an output type. */
export type Images<O extends OutputType> = O extends 'image' ? GeneratedImage[] : Tensor4D;

/** Seconds spent in each stage of a call. */
export interface Timings {
  encode: number;
  denoise: number;
  decode: number;
  total: number;
  /** Each denoising step. */
  steps: number[];
}

/** What a call of a pipeline gives. */
export interface Output<T = GeneratedImage[]> {
  /** GeneratedImage objects, or a tensor that the caller owns with outputType 'tensor' or 'latent'. */
  images: T;
  /** Seed of the batch, or of each picture. */
  seeds: bigint[];
  timings: Timings;
}

/** State of the denoising loop after a step. */
export interface DenoisingStep<T extends Tensor = Tensor4D> {
  /** 0 for the first step that is taken. */
  step: number;
  /** Steps that are taken in all. */
  total: number;
  timestep: number;
  /** [B, height / 8, width / 8, 4]; the pipeline's, to be cloned if it is to outlive the callback. */
  latents: T;
  /** The clean latents that the model now predicts, where the scheduler computes them; the pipeline's, too. */
  predOriginalSample?: T;
  /** The pictures as they look now, after the steps for which the option `preview` asks for them. */
  preview?: GeneratedImage[];
}

/** What a callback may ask for. The pipeline takes tensors over and disposes of them. */
export interface StepChanges<T extends Tensor = Tensor4D> {
  /** Other latents to go on with, of the same shape. */
  latents?: T;
  /** Other text embeddings, of the shape that the loop has them in: both halves, the negative one first, or one half. */
  promptEmbeds?: Tensor3D;
  /** Another weight of the prompt from here on; 1 or less turns guidance off, which saves half of the work. */
  guidanceScale?: number;
  /** Ends the loop here. */
  stop?: boolean;
}

// biome-ignore lint/suspicious/noConfusingVoidType: a callback that returns nothing is the usual one
export type StepDecision<T extends Tensor = Tensor4D> = StepChanges<T> | undefined | void;

export interface DenoisingProgress {
  stage: 'denoise';
  /** Steps done, and in all. */
  step: number;
  total: number;
  /** Seconds that the last step took. */
  seconds: number;
  /** The pictures as they look now, after the steps for which the option `preview` asks for them. */
  preview?: GeneratedImage[];
}

/**
 * How pictures in the making are shown: 'linear', each latent as the colour that it stands for, at next to no cost; or
 * decoded by a VAE, usually an AutoencoderTiny, after every `every`-th step (1 unless told) and the last one.
 */
export type PreviewSetting = 'linear' | { vae: Autoencoder; every?: number };

/** What is called during a call of a pipeline, and what ends it. */
export interface LoopOptions<T extends Tensor = Tensor4D> {
  /** Called after every step; may return what is to change or ask to stop. It cannot call the same pipeline. */
  callbackOnStepEnd?: (step: DenoisingStep<T>) => StepDecision<T> | Promise<StepDecision<T>>;
  /** Ends the call with an AbortedError: while it waits for its turn, before the next step, or before the decoder. */
  signal?: AbortSignal;
  onProgress?: (progress: DenoisingProgress) => void;
  /** Pictures in the making for `onProgress` and `callbackOnStepEnd`. Default: none. */
  preview?: PreviewSetting;
}

/** diffusers' options of __call__ that every pipeline has, in camelCase. */
export interface GenerationOptions extends LoopOptions {
  /** Denoising steps of the whole schedule. */
  numInferenceSteps?: number;
  /** Own timesteps, descending, instead of a number of steps; for schedulers that take them. */
  timesteps?: readonly number[];
  /** Weight of the prompt; 1 or less turns guidance off. */
  guidanceScale?: number;
  /** Pictures per prompt. Default 1. */
  numImagesPerPrompt?: number;
  /** Seed of one generator for the batch, or one seed for each picture. Random when neither seed nor generator is given. */
  seed?: number | bigint | readonly (number | bigint)[];
  /** Instead of a seed: one generator for the batch, or one for each picture. */
  generator?: TorchGenerator | readonly TorchGenerator[];
  /** `scale`: factor of the weights of all LoRAs, for this call. */
  crossAttentionKwargs?: { scale?: number };
  /** 'image': GeneratedImage objects (default); 'tensor': [B,H,W,3] in 0..1; 'latent': [B,h,w,4] before the VAE. */
  outputType?: OutputType;
}

/** Size and starting noise of pictures that begin with nothing else. */
export interface SizeOptions {
  /** Pixels, a multiple of the VAE's scale factor (8). Default: what the model was trained on. */
  height?: number;
  width?: number;
  /** Starting noise of variance 1, [B, height / 8, width / 8, 4], instead of what the generator would draw. It stays the caller's. */
  latents?: Tensor4D;
}

/** Whether a value is usable, and what is expected, in words. */
export type Check = readonly [usable: (value: unknown) => boolean, expected: string | ((value: unknown) => string)];

/** The one schema of options: a row for every name that there is. */
export type Checks<O> = { readonly [K in keyof Required<O>]: Check };

const isSeed = (value: unknown): boolean => is.integer(value) || typeof value === 'bigint';
const isGenerator = (value: unknown): boolean => value instanceof TorchGenerator;
/** One of what `usable` accepts, or a list of them. */
const oneOrList =
  (usable: (value: unknown) => boolean) =>
  (value: unknown): boolean =>
    Array.isArray(value) ? value.every(usable) : usable(value);

const OUTPUT_TYPES: readonly OutputType[] = ['image', 'tensor', 'latent'];

export const CALLBACK: Check = [is.function, 'a function'];
export const SIGNAL: Check = [is.signal, 'an AbortSignal'];
export const COUNT: Check = [is.count, 'a whole number of at least 1'];
export const NUMBER: Check = [is.number, 'a number'];
export const NUMBERS: Check = [is.numbers, 'a list of numbers'];
export const SHARE: Check = [is.share, 'a number from 0 to 1'];
export const TENSOR: Check = [is.tensor, 'a tensor'];

function isPreview(value: unknown): boolean {
  const { vae, every = 1 } = (is.object(value) ? value : {}) as { vae?: unknown; every?: unknown };
  return value === 'linear' || (vae instanceof Autoencoder && is.count(every));
}

/** Weights of LoRAs at a call. */
export const LORA_SCALE: Check = [
  (value) => is.object(value) && Object.entries(value).every(([name, n]) => name === 'scale' && is.number(n)),
  'an object { scale: number }',
];

export const choice = <T>(choices: readonly T[]): Check => [(value) => is.oneOf(choices, value), oneOf(choices)];

export const GENERATION_CHECKS: Checks<GenerationOptions> = {
  numInferenceSteps: COUNT,
  timesteps: NUMBERS,
  guidanceScale: NUMBER,
  numImagesPerPrompt: COUNT,
  seed: [oneOrList(isSeed), 'an integer, a bigint or a list with one for each picture'],
  generator: [oneOrList(isGenerator), 'a TorchGenerator or a list of them'],
  crossAttentionKwargs: LORA_SCALE,
  outputType: choice(OUTPUT_TYPES),
  callbackOnStepEnd: CALLBACK,
  signal: SIGNAL,
  onProgress: CALLBACK,
  preview: [isPreview, "'linear', or {vae, every} with an autoencoder and a number of steps"],
};

/** @param multiple pixels per latent */
export function sizeChecks(multiple: number): Checks<SizeOptions> {
  const size: Check = [
    (value) => is.count(value) && value % multiple === 0,
    (value) => {
      const near = Math.max(multiple, Math.round(Number(value) / multiple) * multiple) || multiple;
      return `a positive multiple of ${multiple} (for instance ${near})`;
    },
  ];
  return { height: size, width: size, latents: TENSOR };
}

/**
 * Checks what can be checked before any work is done. null stands for an option that was not given.
 *
 * @param where class or function that was given the options
 * @throws InvalidArgumentError for a name that does not exist, with the nearest that does, and for an unusable value
 */
export function checkOptions(where: string, options: object, checks: Readonly<Record<string, Check>>): void {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  checkNames(
    where,
    given.map(([name]) => name),
    Object.keys(checks),
  );
  for (const [name, value] of given) {
    const [usable, expected] = checks[name]!;
    if (value !== null && !usable(value)) {
      throw invalid(where, name, typeof expected === 'string' ? expected : expected(value), value);
    }
  }
}

/**
 * Options without those that are null, as callers from JavaScript write Python's None.
 *
 * @throws InvalidArgumentError when they are no object
 */
export function withoutNulls<T extends object>(where: string, options: T): T {
  const given: unknown = options ?? {};
  expectThat(is.object(given) && !(given instanceof tf.Tensor), where, 'options', 'an object', options);
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null)) as T;
}
