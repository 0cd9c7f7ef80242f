import type { Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { readImageFile } from '../../images/read_image.js';
import type { Autoencoder } from '../../models/index.js';
import type { SchedulerMixin } from '../../schedulers/index.js';
import { is } from '../../utils/check.js';
import type { Plan, Start } from './denoising_pipeline.js';
import { type ImageInput, VaeImageProcessor } from './image_processor.js';
import { encodeImage, prepareLatents, repeatBatch } from './latents.js';
import type { Check } from './options.js';

/** One picture, or several of one kind. */
export type Pictures = ImageInput | readonly ImageInput[];

/** What a start needs of a pipeline. */
export interface StartingPipeline {
  className: string;
  vae: Autoencoder;
  scheduler: SchedulerMixin;
}

export const STRENGTH: Check = [is.share, 'a number from 0 to 1'];
/** The image processor says what pictures are. */
export const IMAGE: Check = [(value) => is.object(value) || is.string(value) || Array.isArray(value), 'a picture'];

/** The pictures of an option, those of files as pixels; the plan notes the files, or that there is more than files. */
export async function readInputs(plan: Plan, option: string, pictures: Pictures): Promise<ImageInput[]> {
  const read = async (item: ImageInput) => {
    const isFile = is.string(item) || item instanceof Uint8Array;
    return isFile ? readImageFile(item) : { pixels: item, file: undefined };
  };
  const found = await Promise.all([pictures as ImageInput | ImageInput[]].flat().map(read));
  plan.inputs[option] = found.flatMap(({ file }) => file ?? []);
  if (plan.inputs[option].length < found.length) {
    plan.unrecorded.add(option);
  }
  return found.map(({ pixels }) => pixels);
}

/** The processor of pictures that a VAE encodes. */
export function imageProcessor({ scaleFactor: vaeScaleFactor, parsed }: Autoencoder): VaeImageProcessor {
  return new VaeImageProcessor({ vaeScaleFactor, vaeLatentChannels: parsed.latentChannels });
}

/**
 * Image to image: latents of the pictures, as many as are drawn, with the noise of the first step (SDEdit, Meng et al.
 * 2021).
 *
 * @param options.size in pixels that the pictures are brought to; their own unless told
 * @param options.addNoise false: the pictures are latents in the middle of a run already, and are taken as they are
 */
export async function startFromImage(
  pipe: StartingPipeline,
  plan: Plan,
  image: Pictures,
  { addNoise = true, size = {} }: { addNoise?: boolean; size?: { height?: number; width?: number } } = {},
): Promise<Start> {
  const { vae, scheduler, className } = pipe;
  const { generator } = plan.noise;
  const pixels = await imageProcessor(vae).preprocess(await readInputs(plan, 'image', image), size);
  try {
    const latents = await vae.withWeights(() =>
      tf.tidy(() => {
        const original = originalLatents(className, vae, pixels, plan);
        const { shape } = original;
        return addNoise
          ? prepareLatents(scheduler, shape, generator, { original, begin: plan.begin })
          : tf.clone(original);
      }),
    );
    return { latents };
  } finally {
    pixels.dispose();
  }
}

/** Latents of the pictures, as many as are drawn; latents that were given stay as they are. */
function originalLatents(where: string, vae: Autoencoder, pixels: Tensor4D, { pictures, noise }: Plan): Tensor4D {
  const { generator } = noise;
  const areLatents = pixels.shape[3] === vae.parsed.latentChannels;
  // a generator for each picture draws for each; one generator draws for the pictures that were given
  const input = Array.isArray(generator) ? repeatBatch(where, 'image', pixels, pictures) : pixels;
  const latents = areLatents ? tf.clone(input) : encodeImage(vae, input, generator);
  return repeatBatch(where, 'image', latents, pictures);
}
