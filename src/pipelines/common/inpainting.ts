import type { Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { GeneratedImage } from '../../images/index.js';
import { cropRegion, overlay } from '../../images/overlay.js';
import { type Box, type PixelArray, toGrey, toRgb } from '../../images/resample.js';
import { type Autoencoder, AutoencoderKL, type UNet2DConditionModel } from '../../models/index.js';
import { expectThat, invalid, is } from '../../utils/check.js';
import { randnTensor } from '../../utils/randn_tensor.js';
import type { LoopStep } from './denoising_loop.js';
import type { Plan, Start } from './denoising_pipeline.js';
import { IMAGE, imageProcessor, type Pictures, readInputs, STRENGTH, type StartingPipeline } from './image_latents.js';
import { type ImageInput, pixelsOf, resize, VaeImageProcessor } from './image_processor.js';
import { checkGivenLatents, encodeImage, latentShape, prepareLatents, repeatBatch } from './latents.js';
import { type Checks, type OutputType, type SizeOptions, sizeChecks, TENSOR } from './options.js';

/** Options of the calls that draw parts of pictures anew. */
export interface InpaintingOptions extends SizeOptions {
  /** The picture that parts of are drawn anew: one for all, or as many as divide those to draw. */
  image: Pictures;
  /** What is drawn anew: white, or 1 in a tensor [H,W,1]; the picture stays where it is black. Of the picture's size. */
  maskImage: Pictures;
  /** For UNets of 9 channels: latents of the picture without what is masked, [B,h,w,4], instead of the VAE's. */
  maskedImageLatents?: Tensor4D;
  /** How much of what is masked is drawn anew, 0 to 1: the share of the steps that is taken. */
  strength?: number;
  /** Draws the masked region alone, enlarged to the pictures' size, with so many pixels around it, and puts it back. */
  paddingMaskCrop?: number;
}

export function inpaintingChecks(multiple: number): Checks<InpaintingOptions> {
  return {
    ...sizeChecks(multiple),
    image: IMAGE,
    maskImage: IMAGE,
    maskedImageLatents: TENSOR,
    strength: STRENGTH,
    paddingMaskCrop: [is.whole, 'a whole number of pixels'],
  };
}

/** What inpainting needs of a pipeline. */
export interface InpaintingPipeline extends StartingPipeline {
  unet: UNet2DConditionModel;
}

/** An inpainting call, with its defaults filled in. */
export interface InpaintingCall extends InpaintingOptions {
  height: number;
  width: number;
  strength: number;
  /** false: the pictures are latents in the middle of a run already. Default true. */
  addNoise?: boolean;
  outputType?: OutputType;
}

/** Whether a UNet is told of mask and masked picture; others draw everything, and the picture is put back. */
const knowsMask = ({ unet, vae }: InpaintingPipeline) => unet.parsed.inChannels !== vae.parsed.latentChannels;

/** @throws InvalidArgumentError for what can be told to be wrong before anything is computed */
export function checkInpainting(pipe: InpaintingPipeline, { pictures }: Plan, call: InpaintingCall): void {
  const { className: where, vae } = pipe;
  const { image, maskImage, paddingMaskCrop, outputType = 'image', latents, maskedImageLatents } = call;
  expectThat(image !== undefined, where, 'image', 'a picture to begin with', image);
  expectThat(maskImage !== undefined, where, 'maskImage', 'a picture, white where the other is drawn anew', maskImage);
  const shape = latentShape(where, vae, { pictures, ...call });
  checkGivenLatents(where, latents, shape);
  if (maskedImageLatents) {
    const own = [maskedImageLatents.shape[0], ...shape.slice(1)];
    expectThat(`${maskedImageLatents.shape}` === `${own}`, where, 'maskedImageLatents', `[B, ${own.slice(1)}]`, own);
  }
  if (paddingMaskCrop !== undefined) {
    const alone = [image, maskImage].every((given) => !(given instanceof tf.Tensor) && [given].flat().length === 1);
    expectThat(alone, where, 'paddingMaskCrop', 'one picture and one mask, as pixels or files', image);
    expectThat(outputType === 'image', where, 'outputType', "'image' with paddingMaskCrop", outputType);
  }
}

/** Pictures [N,H,W,3] in -1..1 (or latents) and mask [M,H,W,1] of 0 and 1. */
interface Prepared {
  pixels: Tensor4D;
  mask: Tensor4D;
}

/**
 * Inpainting (diffusers' prepare_latents and prepare_mask_latents): where the latents begin, what a UNet of 9 channels is
 * told beside them, and how the picture is put back where it is not masked.
 */
export async function startInpainting(pipe: InpaintingPipeline, plan: Plan, call: InpaintingCall): Promise<Start> {
  const { className: where, vae } = pipe;
  const images = await readInputs(plan, 'image', call.image);
  const masks = await readInputs(plan, 'maskImage', call.maskImage);
  checkSizes(where, images, masks, vae.parsed.latentChannels);
  const region = call.paddingMaskCrop === undefined ? undefined : await regionOf(masks[0]!, call);
  const prepared = await preprocess(vae, images, masks, call, region);
  try {
    const start = await vae.withWeights(() => startFrom(pipe, plan, prepared, call));
    return region ? { ...start, finish: await putBack(images[0]!, masks[0]!, region) } : start;
  } finally {
    tf.dispose({ ...prepared });
  }
}

/** @throws InvalidArgumentError for masks of other sizes than their pictures */
function checkSizes(where: string, images: ImageInput[], masks: ImageInput[], latentChannels: number): void {
  const size = (picture: ImageInput) => {
    const { width, height } = picture as PixelArray;
    const [rows, columns] = picture instanceof tf.Tensor ? picture.shape.slice(-3) : [height, width];
    return `${columns} x ${rows}`;
  };
  for (const [i, mask] of masks.entries()) {
    const image = images[i % images.length]!;
    const areLatents = image instanceof tf.Tensor && image.shape.at(-1) === latentChannels;
    if (!areLatents && is.object(image) && is.object(mask) && size(mask) !== size(image)) {
      throw invalid(where, 'maskImage', `the size of its picture, ${size(image)} pixels`, size(mask));
    }
  }
}

const MASKS = { doNormalize: false, doBinarize: true, doConvertGrayscale: true };

/** The region of a mask that is drawn alone. */
export async function regionOf(mask: ImageInput, { width, height, paddingMaskCrop }: InpaintingCall): Promise<Box> {
  return cropRegion(toGrey(await pixelsOf(mask)), width, height, paddingMaskCrop!);
}

async function preprocess(
  vae: Autoencoder,
  images: ImageInput[],
  masks: ImageInput[],
  { width, height }: InpaintingCall,
  cropsCoords: Box | undefined,
): Promise<Prepared> {
  const options = { width, height, ...(cropsCoords && { cropsCoords, resizeMode: 'fill' as const }) };
  const pixels = await imageProcessor(vae).preprocess(images, options);
  try {
    const masker = new VaeImageProcessor({ ...MASKS, vaeScaleFactor: vae.scaleFactor });
    return { pixels, mask: await masker.preprocess(masks, options) };
  } catch (error) {
    pixels.dispose();
    throw error;
  }
}

/** Draws from the generator in diffusers' order: the picture's latents, the noise, the masked picture's latents. */
function startFrom(pipe: InpaintingPipeline, plan: Plan, { pixels, mask }: Prepared, call: InpaintingCall): Start {
  const { className: where, vae, scheduler } = pipe;
  const { pictures, begin } = plan;
  const { generator } = plan.noise;
  const { latents: given, strength, addNoise = true } = call;
  const shape = latentShape(where, vae, { pictures, ...call });
  const nine = knowsMask(pipe);
  const tensors = tf.tidy(() => {
    const fromImage = !addNoise || (!given && strength < 1);
    const original = nine && !fromImage ? undefined : latentsOf(pipe, plan, pixels);
    const noise = given ? tf.clone(given) : (randnTensor(shape, generator) as Tensor4D);
    const first = { noise, original: given || strength === 1 ? undefined : original, begin };
    const latents = addNoise ? prepareLatents(scheduler, shape, generator, first) : tf.clone(original!);
    const small = tf.image.resizeNearestNeighbor(mask, [shape[1], shape[2]]);
    const smallMask = repeatBatch(where, 'maskImage', small, pictures);
    const masked = maskedLatents(pipe, plan, { pixels, mask }, call);
    const channels = nine ? tf.concat([smallMask, masked!], 3) : undefined;
    return { latents, noise, original, smallMask, channels };
  });
  const { latents, noise, original, smallMask, channels } = tensors;
  const mix = (x: Tensor4D, { nextTimestep }: LoopStep): Tensor4D => {
    const known = nextTimestep === undefined ? original! : scheduler.addNoise(original!, noise, nextTimestep);
    return tf.add(tf.mul(tf.sub(1, smallMask), known), tf.mul(smallMask, x));
  };
  const owned = [noise, smallMask, ...(original ? [original] : []), ...(channels ? [channels] : [])];
  return channels
    ? { latents, owned, conditions: () => ({ inputChannels: tf.clone(channels) }) }
    : { latents, owned, mix };
}

/** Latents of pictures, as many as are drawn; latents that were given stay as they are. */
function latentsOf({ className: where, vae }: InpaintingPipeline, plan: Plan, pixels: Tensor4D): Tensor4D {
  const { pictures, noise } = plan;
  if (pixels.shape[3] === vae.parsed.latentChannels) {
    return repeatBatch(where, 'image', pixels, pictures);
  }
  // one generator for each picture that was given
  const generator = Array.isArray(noise.generator) ? noise.generator.slice(0, pixels.shape[0]) : noise.generator;
  return repeatBatch(where, 'image', encodeImage(vae, pixels, generator), pictures);
}

/** Latents of the pictures without what is masked, for a UNet that is told of them. */
function maskedLatents(
  pipe: InpaintingPipeline,
  plan: Plan,
  { pixels, mask }: Prepared,
  { maskedImageLatents }: InpaintingCall,
): Tensor4D | undefined {
  const { className: where, vae } = pipe;
  if (maskedImageLatents) {
    return repeatBatch(where, 'maskedImageLatents', maskedImageLatents, plan.pictures);
  }
  if (pixels.shape[3] === vae.parsed.latentChannels) {
    const expected = 'to be given where the UNet has 9 channels and image is latents';
    expectThat(!knowsMask(pipe), where, 'maskedImageLatents', expected, undefined);
    return undefined;
  }
  if (knowsMask(pipe)) {
    return latentsOf(pipe, plan, tf.mul(pixels, tf.sub(1, mask)));
  }
  // diffusers computes these latents, too, which nothing uses but the generator
  if (vae instanceof AutoencoderKL) {
    const [count, height, width] = pixels.shape;
    const shape = latentShape(where, vae, { pictures: count, height, width });
    const { generator } = plan.noise;
    randnTensor(shape, Array.isArray(generator) ? generator.slice(0, count) : generator);
  }
  return undefined;
}

/** Puts what was drawn back into its region of the picture. */
async function putBack(image: ImageInput, maskImage: ImageInput, region: Box): Promise<Start['finish']> {
  const [picture, mask] = [toRgb(await pixelsOf(image)), toGrey(await pixelsOf(maskImage))];
  return ({ width, height, data, metadata }) => {
    const drawn = { width, height, data, channels: 3 };
    const fitting = resize(drawn, region.right - region.left, region.bottom - region.top, 'crop');
    const whole = overlay(picture, mask, fitting, region);
    return new GeneratedImage(whole.width, whole.height, whole.data, metadata);
  };
}
