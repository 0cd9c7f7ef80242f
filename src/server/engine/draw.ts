import type { Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { applyTokenMerging, removeTokenMerging } from '../../attention/index.js';
import { InvalidArgumentError } from '../../errors.js';
import { type GeneratedImage, PARAMETERS_KEY } from '../../images/index.js';
import { readImage } from '../../images/read_image.js';
import { resample } from '../../images/resample.js';
import { type DenoisingStep, type ImageInput, randomSeed } from '../../pipelines/index.js';
import type { DrawRequest } from '../request/draw_request.js';
import { schedulerFor } from '../request/samplers.js';
import { CALL_OPTIONS } from './call_options.js';
import type { DrawingPipeline, LoadedModel, Task } from './loaded_model.js';
import type { Ask, DrawProgress, Picture, Preview } from './messages.js';
import { previewOf, previewSteps } from './previews.js';

/** What goes on while a request is drawn. */
export interface DrawHooks {
  signal: AbortSignal;
  /** What is to be done after the next step; what is done is taken out. */
  asked: Set<Ask>;
  onProgress: (progress: DrawProgress) => void;
  onPreview: (preview: Preview) => void;
}

/** One picture of a request. */
interface PictureJob {
  request: DrawRequest;
  index: number;
  seed: number;
  hooks: DrawHooks;
  /** Steps of the passes before this one. */
  done: number;
  /** Steps of the passes that follow. */
  rest: number;
}

type CallOptions = Record<string, unknown>;

/**
 * Draws the pictures of a request one after another, each with its own seed.
 *
 * @throws InvalidArgumentError for what the model cannot be told, AbortedError through the signal
 */
export async function draw(model: LoadedModel, request: DrawRequest, hooks: DrawHooks): Promise<Picture[]> {
  const { n = 1, seed = randomSeed() } = request;
  const pictures: Picture[] = [];
  for (let index = 0; index < n && !hooks.asked.has('stop'); index++) {
    const image = await drawOne(model, { request, index, seed: seed + index, hooks, done: 0, rest: 0 });
    pictures.push(await encode(image, request, seed + index));
    hooks.asked.delete('skip');
  }
  return pictures;
}

async function drawOne(model: LoadedModel, job: PictureJob): Promise<GeneratedImage> {
  const { request } = job;
  const task = taskOf(request);
  const pipe = pipelineFor(model, task);
  await prepare(model, pipe, request);
  const options = { ...callOptions(model, pipe, request), ...(await inputs(request)) };
  const { hires } = request;
  if (!hires || task !== 'txt2img') {
    return runPass(pipe, job, options);
  }
  return drawTwice(model, pipe, job, options, hires);
}

function taskOf({ image, mask }: DrawRequest): Task {
  if (mask && !image) {
    throw new InvalidArgumentError('a mask needs a picture: `image` is missing');
  }
  return image ? (mask ? 'inpaint' : 'img2img') : 'txt2img';
}

function pipelineFor({ tasks, txt2img }: LoadedModel, task: Task): DrawingPipeline {
  const pipe = tasks[task];
  if (!pipe) {
    const can = Object.keys(tasks).join(', ');
    throw new InvalidArgumentError(`${txt2img.modelName} (${txt2img.className}) cannot do ${task}; it can do ${can}`);
  }
  return pipe;
}

/** Scheduler, attention and token merging, anew for every picture: nothing of another request is left. */
async function prepare(model: LoadedModel, pipe: DrawingPipeline, request: DrawRequest): Promise<void> {
  const { attention = model.attention, token_merging_ratio: ratio = 0, lenient, sampler } = request;
  try {
    pipe.scheduler = schedulerFor(request, model.scheduler);
  } catch (error) {
    if (!lenient) {
      throw error;
    }
    // clients send the spacing of the sampler that was chosen before
    pipe.scheduler = schedulerFor({ sampler }, model.scheduler);
  }
  pipe.setAttention(attention);
  await useLoras(model, pipe, request);
  removeTokenMerging(pipe);
  if (ratio > 0) {
    applyTokenMerging(pipe, { ratio });
  }
}

/** LoRAs stay loaded; those at work are the request's. */
async function useLoras({ loras }: LoadedModel, pipe: DrawingPipeline, request: DrawRequest): Promise<void> {
  const wanted = (request.lora ?? []).filter(({ name }) => Object.hasOwn(loras, name) || !request.lenient);
  for (const { name } of wanted) {
    if (!Object.hasOwn(loras, name)) {
      const known = Object.keys(loras).join(', ') || 'none';
      throw new InvalidArgumentError(`there is no LoRA '${name}'; this server has ${known}`);
    }
    if (!pipe.getListAdapters().includes(name)) {
      await pipe.loadLoraWeights(loras[name]!, { adapterName: name });
    }
  }
  if (wanted.length > 0) {
    pipe.enableLora();
    const names = wanted.map(({ name }) => name);
    pipe.setAdapters(
      names,
      wanted.map(({ weight }) => weight),
    );
  } else if (pipe.getListAdapters().length > 0) {
    pipe.disableLora();
  }
}

/** @throws InvalidArgumentError for fields that the pipeline has no option for, unless the request is lenient */
function callOptions(model: LoadedModel, pipe: DrawingPipeline, request: DrawRequest): CallOptions {
  const known = pipe.optionNames;
  const { steps = model.defaults.steps, guidance_scale = model.defaults.guidance_scale } = request;
  const values: DrawRequest = { ...request, steps, guidance_scale };
  const options: CallOptions = {};
  for (const [field, option] of Object.entries(CALL_OPTIONS)) {
    const value = values[field as keyof DrawRequest];
    if (value === undefined || value === '' || ['image', 'mask'].includes(field)) {
      continue;
    }
    if (known.includes(option)) {
      options[option] = value;
    } else if (!request.lenient && !isSizeOfPicture(field, request)) {
      throw new InvalidArgumentError(`${model.txt2img.modelName} (${pipe.className}) has no use for '${field}'`);
    }
  }
  return options;
}

/** A picture to begin with is brought to the size that is asked for, so that its pipeline need not be told. */
const isSizeOfPicture = (field: string, { image }: DrawRequest) =>
  image !== undefined && (field === 'width' || field === 'height');

async function inputs({ image, mask, width, height }: DrawRequest): Promise<CallOptions> {
  return {
    ...(image ? { image: await resized(image, width, height) } : {}),
    ...(mask ? { maskImage: await resized(mask, width, height) } : {}),
  };
}

/** The file itself where it has the size, so that the picture's metadata can name it. */
async function resized(bytes: Uint8Array, width?: number, height?: number): Promise<ImageInput> {
  if (width === undefined && height === undefined) {
    return bytes;
  }
  const pixels = await readImage(bytes);
  const size = { width: width ?? pixels.width, height: height ?? pixels.height };
  const fits = size.width === pixels.width && size.height === pixels.height;
  return fits ? bytes : resample(pixels, size.width, size.height);
}

/** The web UI's hires fix: a small picture is enlarged and drawn anew in part. */
async function drawTwice(
  model: LoadedModel,
  pipe: DrawingPipeline,
  job: PictureJob,
  options: CallOptions,
  { scale, upscaler, steps = options.numInferenceSteps as number, strength }: NonNullable<DrawRequest['hires']>,
): Promise<GeneratedImage> {
  const second = pipelineFor(model, 'img2img');
  await prepare(model, second, job.request);
  const multiple = pipe.vae.scaleFactor;
  const { width = model.trainedSize.width, height = model.trainedSize.height } = job.request;
  const size = [height, width].map((edge) => Math.max(multiple, Math.round((edge * scale) / multiple) * multiple));
  const rest = Math.min(Math.floor(steps * strength), steps);
  const first = { ...job, rest };
  const image =
    upscaler === 'latent'
      ? await enlargedLatents(pipe, first, options, size, multiple)
      : resample({ ...(await runPass(pipe, first, options)), channels: 3 }, size[1]!, size[0]!);
  const { width: _, height: __, ...rest2 } = options;
  try {
    const done = options.numInferenceSteps as number;
    return await runPass(second, { ...job, done }, { ...rest2, image, strength, numInferenceSteps: steps });
  } finally {
    if (image instanceof tf.Tensor) {
      image.dispose();
    }
  }
}

async function enlargedLatents(
  pipe: DrawingPipeline,
  job: PictureJob,
  options: CallOptions,
  [height, width]: number[],
  multiple: number,
): Promise<Tensor4D> {
  const latents = await runPass(pipe, job, { ...options, outputType: 'latent' });
  try {
    return tf.image.resizeBilinear(latents as unknown as Tensor4D, [height! / multiple, width! / multiple]);
  } finally {
    tf.dispose(latents as unknown as Tensor4D);
  }
}

/** One call of a pipeline, watched. */
async function runPass(pipe: DrawingPipeline, job: PictureJob, options: CallOptions): Promise<GeneratedImage> {
  const { request, hooks, index: picture, done, rest } = job;
  const pictures = request.n ?? 1;
  let seconds = 0;
  const onProgress = (progress: { seconds: number }) => {
    seconds = progress.seconds;
  };
  const callbackOnStepEnd = async (state: DenoisingStep) => {
    const { step, total } = state;
    hooks.onProgress({ picture, pictures, step: done + step + 1, steps: done + total + rest, seconds });
    const index = previewSteps(request.previews ?? 0, total).indexOf(step + 1);
    if ((hooks.asked.delete('preview') || index >= 0) && !hooks.signal.aborted) {
      const preview = await previewOf(pipe, state, request);
      hooks.onPreview({ picture, step: done + step + 1, index, ...preview });
    }
    return hooks.asked.has('skip') || hooks.asked.has('stop') ? { stop: true } : undefined;
  };
  const watch = { signal: hooks.signal, seed: job.seed, onProgress, callbackOnStepEnd };
  const { images } = await pipe.run(request.prompt, { ...options, ...watch } as never);
  return (Array.isArray(images) ? images[0] : images) as GeneratedImage;
}

async function encode(image: GeneratedImage, request: DrawRequest, seed: number): Promise<Picture> {
  const { output_format: format = 'png', output_quality: quality } = request;
  const bytes = await image.toBuffer(format, { quality });
  const { width, height } = image;
  return { bytes, format, width, height, seed, parameters: image.metadata[PARAMETERS_KEY] ?? '' };
}
