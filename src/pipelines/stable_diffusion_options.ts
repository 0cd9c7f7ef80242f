import type { Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import { TorchGenerator } from '../utils/torch_generator.js';
import type { PromptSyntax } from './encode_prompt.js';
import type { NegativeGuidanceOptions } from './negative_guidance.js';

/** State of the denoising loop after a step. */
export interface DenoisingStep {
  /** 0 for the first step. */
  step: number;
  timestep: number;
  /** [B, height / 8, width / 8, 4]; the pipeline's, to be cloned if it shall outlive the callback. */
  latents: Tensor4D;
}

/** What a callback may ask for: other latents to go on with (the pipeline takes them over), or to end the loop here. */
// biome-ignore lint/suspicious/noConfusingVoidType: a callback that returns nothing is the usual one
export type StepDecision = { latents?: Tensor4D; stop?: boolean } | undefined | void;

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
  /** Layers of the text encoder to leave out at the end. */
  clipSkip?: number;
  /** How prompts are read: 'diffusers' (default) takes them as they are, cut at 77 tokens; 'a1111' as the web UI does. */
  promptSyntax?: PromptSyntax;
  /** 'image': GeneratedImage objects (default); 'tensor': [B,H,W,3] in 0..1; 'latent': [B,h,w,4] before the VAE. */
  outputType?: OutputType;
  /** Called after every step; may return other latents or ask to stop. */
  callbackOnStepEnd?: (step: DenoisingStep) => StepDecision | Promise<StepDecision>;
  /** Ends the call with an AbortedError before the next step. */
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

/**
 * Checks what can be checked before any work is done.
 *
 * @param multiple pixels per latent
 * @throws InvalidArgumentError that says what was expected
 */
export function checkOptions(options: StableDiffusionOptions, height: number, width: number, multiple: number): void {
  const expect = (ok: boolean, what: string, got: unknown) => {
    if (!ok) {
      throw new InvalidArgumentError(`[StableDiffusionPipeline] ${what}, got ${String(got)}`);
    }
  };
  const count = (value: number | undefined) => value === undefined || (Number.isInteger(value) && value >= 1);
  for (const [name, size] of [
    ['height', height],
    ['width', width],
  ] as const) {
    const usable = Number.isInteger(size) && size > 0 && size % multiple === 0;
    const near = Math.max(multiple, Math.round(Number(size) / multiple) * multiple) || multiple;
    expect(usable, `${name} must be a positive multiple of ${multiple} (for instance ${near})`, size);
  }
  const finite = (value: number | undefined) => value === undefined || Number.isFinite(value);
  expect(
    count(options.numInferenceSteps),
    'numInferenceSteps must be a whole number of at least 1',
    options.numInferenceSteps,
  );
  expect(
    count(options.numImagesPerPrompt),
    'numImagesPerPrompt must be a whole number of at least 1',
    options.numImagesPerPrompt,
  );
  expect(finite(options.guidanceScale), 'guidanceScale must be a number', options.guidanceScale);
  expect(finite(options.guidanceRescale), 'guidanceRescale must be a number', options.guidanceRescale);
  expect(finite(options.eta), 'eta must be a number from 0 to 1', options.eta);
  const share = (value: number | undefined) => finite(value) && (value === undefined || (value >= 0 && value <= 1));
  expect(share(options.skipEarlyCond), 'skipEarlyCond must be a number from 0 to 1', options.skipEarlyCond);
  const { negativeGuidanceMinSigma: minSigma, negativeGuidanceSteps: which } = options;
  expect(
    minSigma === undefined || minSigma >= 0,
    'negativeGuidanceMinSigma must be a noise level of at least 0',
    minSigma,
  );
  const choices: readonly unknown[] = ['alternate', 'all', undefined];
  expect(choices.includes(which), "negativeGuidanceSteps must be 'alternate' or 'all'", which);
  const syntaxes: readonly unknown[] = ['diffusers', 'a1111', undefined];
  expect(syntaxes.includes(options.promptSyntax), "promptSyntax must be 'diffusers' or 'a1111'", options.promptSyntax);
  const types: readonly unknown[] = ['image', 'tensor', 'latent', undefined];
  expect(types.includes(options.outputType), "outputType must be 'image', 'tensor' or 'latent'", options.outputType);
}
