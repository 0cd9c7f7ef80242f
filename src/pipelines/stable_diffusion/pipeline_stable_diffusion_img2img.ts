import type { Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { readImageFile } from '../../images/read_image.js';
import { expectThat, is } from '../../utils/check.js';
import type { FromPretrainedOptions } from '../common/components.js';
import { loadPipeline } from '../common/diffusion_pipeline.js';
import { type ImageInput, VaeImageProcessor } from '../common/image_processor.js';
import { encodeImage, prepareLatents, repeatBatch } from '../common/latents.js';
import type { Check } from '../common/options.js';
import { applySchedule } from '../common/schedule.js';
import {
  type Plan,
  STABLE_DIFFUSION_CHECKS,
  StableDiffusionBase,
  type StableDiffusionBaseOptions,
} from './stable_diffusion_base.js';
import type { StableDiffusionComponents } from './stable_diffusion_components.js';

/** diffusers' options of StableDiffusionImg2ImgPipeline.__call__, in camelCase. */
export interface StableDiffusionImg2ImgOptions extends StableDiffusionBaseOptions {
  /** Where to begin: one picture for all, or as many as divide those to draw. Sizes are cut to a multiple of 8. */
  image: ImageInput | readonly ImageInput[];
  /** How much of the picture is drawn anew, 0 to 1: the share of the steps that is taken. Default 0.8. */
  strength?: number;
}

const STRENGTH: Check = [is.share, 'a number from 0 to 1'];
/** The image processor says what pictures are. */
const IMAGE: Check = [(value) => is.object(value) || is.string(value) || Array.isArray(value), 'a picture'];

/**
 * Picture to picture with Stable Diffusion 1.x and 2.x (diffusers'
 * pipelines/stable_diffusion/pipeline_stable_diffusion_img2img.py; SDEdit, Meng et al. 2021).
 */
export class StableDiffusionImg2ImgPipeline extends StableDiffusionBase<StableDiffusionImg2ImgOptions> {
  static readonly className: string = 'StableDiffusionImg2ImgPipeline';
  protected override readonly defaults = { numInferenceSteps: 50, guidanceScale: 7.5, strength: 0.8 };

  constructor(components: StableDiffusionComponents) {
    super(components, StableDiffusionImg2ImgPipeline);
  }

  /** Loads a checkpoint, as StableDiffusionPipeline.fromPretrained does: the parts are the same. */
  static fromPretrained(
    idOrDir: string,
    options: FromPretrainedOptions<StableDiffusionComponents> = {},
  ): Promise<StableDiffusionImg2ImgPipeline> {
    return loadPipeline(StableDiffusionImg2ImgPipeline, idOrDir, options);
  }

  protected get checks() {
    return { ...STABLE_DIFFUSION_CHECKS, image: IMAGE, strength: STRENGTH };
  }

  protected override check(_plan: Plan, { image }: StableDiffusionImg2ImgOptions): void {
    expectThat(image !== undefined, this.className, 'image', 'a picture to begin with', image);
  }

  protected override schedule(options: StableDiffusionImg2ImgOptions): number {
    const {
      numInferenceSteps = this.defaults.numInferenceSteps,
      timesteps,
      sigmas,
      strength = this.defaults.strength,
    } = options;
    return applySchedule(this.className, this.scheduler, { numInferenceSteps, timesteps, sigmas, strength });
  }

  protected async start(plan: Plan, { image }: StableDiffusionImg2ImgOptions): Promise<Tensor4D> {
    const { pictures, noise, begin } = plan;
    const original = await this.originalLatents(await readInputs(image, plan), pictures, noise.generator);
    try {
      const { shape } = original;
      return prepareLatents<Tensor4D>(this.scheduler, shape, noise.generator, { original, begin });
    } finally {
      original.dispose();
    }
  }

  /** Latents of the pictures, as many as are drawn; latents that were given stay as they are. */
  private async originalLatents(
    image: StableDiffusionImg2ImgOptions['image'],
    pictures: number,
    generator: Plan['noise']['generator'],
  ): Promise<Tensor4D> {
    const { scaleFactor: vaeScaleFactor, parsed } = this.vae;
    const processor = new VaeImageProcessor({ vaeScaleFactor, vaeLatentChannels: parsed.latentChannels });
    const pixels = await processor.preprocess(image);
    try {
      return await this.vae.withWeights(() =>
        tf.tidy(() => {
          const areLatents = pixels.shape[3] === parsed.latentChannels;
          // a generator for each picture draws for each; one generator draws for the pictures that were given
          const input = Array.isArray(generator) ? repeatBatch(this.className, 'image', pixels, pictures) : pixels;
          const latents = areLatents ? tf.clone(input) : encodeImage(this.vae, input, generator);
          return repeatBatch(this.className, 'image', latents, pictures);
        }),
      );
    } finally {
      pixels.dispose();
    }
  }
}

/** The pictures, those of files as pixels; the plan notes the files, or that there is more than files. */
async function readInputs(image: StableDiffusionImg2ImgOptions['image'], plan: Plan): Promise<ImageInput[]> {
  const read = async (item: ImageInput) => {
    const isFile = is.string(item) || item instanceof Uint8Array;
    return isFile ? readImageFile(item) : { pixels: item, file: undefined };
  };
  const found = await Promise.all([image as ImageInput | ImageInput[]].flat().map(read));
  plan.inputs = found.flatMap(({ file }) => file ?? []);
  if (plan.inputs.length < found.length) {
    plan.unrecorded.add('image');
  }
  return found.map(({ pixels }) => pixels);
}
