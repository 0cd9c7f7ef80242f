import { ATTENTION_NAMES } from '../../attention/methods/options.js';

/** A low-rank adapter from the server's own files. */
export interface LoraChoice {
  name: string;
  weight: number;
}

/** A second pass over the enlarged picture, as the web UI's hires fix. */
export interface HiresOptions {
  /** How many times as wide and high. */
  scale: number;
  /** 'latent' enlarges the latents, 'lanczos' the picture. */
  upscaler: 'latent' | 'lanczos';
  /** Steps of the second pass; those of the first one where it is left out. */
  steps?: number;
  /** How much of the enlarged picture is drawn anew, 0 to 1. */
  strength: number;
}

/** What is to be drawn, in the words of diffusers. */
export interface DrawOptions {
  prompt: string;
  negative_prompt?: string;
  /** Name of a model of this server; its first one where it is left out. */
  model?: string;
  width?: number;
  height?: number;
  steps?: number;
  guidance_scale?: number;
  guidance_rescale?: number;
  /** Of the first picture; the others take the numbers that follow. Random where it is left out. */
  seed?: number;
  /** Pictures, each with its own seed. */
  n?: number;
  /** 'euler_a', 'DPM++ 2M', 'EulerDiscreteScheduler', ... */
  sampler?: string;
  /** Spacing of noise levels: 'automatic', 'karras', 'exponential', 'beta', 'sgm_uniform'. */
  scheduler?: string;
  /** How much of the picture is drawn anew, 0 to 1. */
  strength?: number;
  clip_skip?: number;
  eta?: number;
  prompt_syntax?: 'diffusers' | 'a1111';
  attention?: string;
  token_merging_ratio?: number;
  negative_guidance_min_sigma?: number;
  skip_early_cond?: number;
  lora?: LoraChoice[];
  hires?: HiresOptions;
  output_format?: 'png' | 'jpeg' | 'webp';
  output_quality?: number;
  /** Pictures on the way to each picture, evenly spaced over its steps. */
  previews?: number;
  /** 'linear' shows each latent as its colour at next to no cost, 'vae' decodes it, which takes as long as about a step. */
  preview_method?: 'linear' | 'vae';
  priority?: Priority;
}

export const PRIORITIES = ['high', 'normal', 'low'] as const;
export type Priority = (typeof PRIORITIES)[number];

/** A request whose pictures are read. */
export interface DrawRequest extends DrawOptions {
  /** Picture to begin with: the bytes of a file. */
  image?: Uint8Array;
  /** White where it is drawn anew. */
  mask?: Uint8Array;
  /** Leave out what the model cannot be told, instead of refusing: for clients that send every field to every model. */
  lenient?: boolean;
  /** How previews are encoded. */
  preview_format?: 'png' | 'jpeg' | 'webp';
}

/** JSON Schema. */
export type JsonSchema = Readonly<Record<string, unknown>>;

const text = (description: string, maxLength: number): JsonSchema => ({ type: 'string', maxLength, description });
const number = (description: string, minimum: number, maximum: number): JsonSchema => ({
  type: 'number',
  ...{ minimum, maximum, description },
});
const whole = (description: string, minimum: number, maximum: number): JsonSchema => ({
  type: 'integer',
  ...{ minimum, maximum, description },
});
const share = (description: string): JsonSchema => number(description, 0, 1);
const choice = (description: string, values: readonly string[]): JsonSchema => ({
  type: 'string',
  ...{ enum: values, description },
});

/** Longer prompts are no prompts. */
export const MAX_PROMPT = 20_000;
const MAX_NAME = 200;
/** As OpenAI's clients and the web UI use them, and within what JSON's numbers hold exactly. */
export const MAX_SEED = Number.MAX_SAFE_INTEGER;

/** The one schema of what can be asked for; limits of the server itself (pixels, steps, pictures) are checked beside it. */
export const DRAW_FIELDS: { readonly [K in keyof Required<DrawOptions>]: JsonSchema } = {
  prompt: text('what the picture shows', MAX_PROMPT),
  negative_prompt: text('what to leave out of the picture', MAX_PROMPT),
  model: text("a model of this server; default: the server's first", MAX_NAME),
  width: whole("pixels, a multiple of what the model needs; default: the model's", 1, 65536),
  height: whole('the same', 1, 65536),
  steps: whole('denoising steps', 1, 100_000),
  guidance_scale: number('weight of the prompt; 1 turns guidance off', 0, 1000),
  guidance_rescale: share('counters over-exposure'),
  seed: whole('of the first picture; the others take the numbers that follow; default: random', 0, MAX_SEED),
  n: whole('pictures', 1, 1000),
  sampler: text("'euler_a', 'DPM++ 2M', 'EulerDiscreteScheduler', ...", MAX_NAME),
  scheduler: text("spacing of noise levels: 'automatic', 'karras', 'exponential', 'beta', 'sgm_uniform'", MAX_NAME),
  strength: share('how much of `image` is drawn anew'),
  clip_skip: whole('layers of the text encoder to leave out', 0, 100),
  eta: share("noise of DDIM's steps"),
  prompt_syntax: choice('`a1111` reads `(word:1.3)`, `[word]` and prompts of any length', ['diffusers', 'a1111']),
  attention: choice('how attention is computed', ATTENTION_NAMES),
  token_merging_ratio: number('merges similar tokens in self-attention', 0, 0.75),
  negative_guidance_min_sigma: number('below this noise level every other step leaves the negative prompt out', 0, 1e4),
  skip_early_cond: share('share of the first steps without negative prompt'),
  lora: {
    type: 'array',
    maxItems: 16,
    description: "low-rank adapters of the server's, with their weights",
    items: {
      type: 'object',
      additionalProperties: false,
      required: ['name', 'weight'],
      properties: { name: text('as GET /capabilities lists it', MAX_NAME), weight: number('1 is as trained', -10, 10) },
    },
  },
  hires: {
    type: 'object',
    description: 'a second pass over the enlarged picture',
    additionalProperties: false,
    required: ['scale', 'upscaler', 'strength'],
    properties: {
      scale: number('times as wide and high', 1, 8),
      upscaler: choice('what is enlarged', ['latent', 'lanczos']),
      steps: whole('of the second pass', 1, 100_000),
      strength: share('how much is drawn anew'),
    },
  },
  output_format: choice('of the pictures; PNG carries all settings', ['png', 'jpeg', 'webp']),
  output_quality: whole('of JPEG and WebP', 1, 100),
  previews: whole('pictures on the way to each picture', 0, 1000),
  preview_method: choice("'linear' costs next to nothing, 'vae' is exact", ['linear', 'vae']),
  priority: choice('which of your own jobs come first', PRIORITIES),
};
