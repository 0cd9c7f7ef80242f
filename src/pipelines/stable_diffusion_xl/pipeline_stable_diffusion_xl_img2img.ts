import { expectThat } from '../../utils/check.js';
import type { FromPretrainedOptions, PipelineConfig } from '../common/components.js';
import type { Branch } from '../common/conditioning.js';
import type { Plan, Start, StepRange } from '../common/denoising_pipeline.js';
import { loadPipeline } from '../common/diffusion_pipeline.js';
import { IMAGE, type Pictures, STRENGTH, startFromImage } from '../common/image_latents.js';
import { type Check, SHARE } from '../common/options.js';
import { takeLastPart } from './last_part.js';
import {
  STABLE_DIFFUSION_XL_CHECKS,
  StableDiffusionXLBase,
  type StableDiffusionXLBaseOptions,
} from './stable_diffusion_xl_base.js';
import type { StableDiffusionXLComponents } from './stable_diffusion_xl_components.js';
import { AESTHETIC_CHECKS, type AestheticOptions, imageToImageIds, type SizePair } from './time_ids.js';

/** diffusers' options of StableDiffusionXLImg2ImgPipeline.__call__, in camelCase. */
export interface StableDiffusionXLImg2ImgOptions extends StableDiffusionXLBaseOptions, AestheticOptions {
  /** Where to begin: one picture for all, or as many as divide those to draw; or latents that a base model has left. */
  image: Pictures;
  /** How much of the picture is drawn anew, 0 to 1: the share of the steps that is taken. Default 0.3. */
  strength?: number;
  /** Share of the schedule, 0 to 1, at which a base model stopped (`denoisingEnd`); takes the place of `strength`. */
  denoisingStart?: number;
}

/**
 * Picture to picture with Stable Diffusion XL, and its refiner (diffusers'
 * pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl_img2img.py; Podell et al. 2023).
 */
export class StableDiffusionXLImg2ImgPipeline extends StableDiffusionXLBase<StableDiffusionXLImg2ImgOptions> {
  static readonly className: string = 'StableDiffusionXLImg2ImgPipeline';
  override config: PipelineConfig = { force_zeros_for_empty_prompt: true, requires_aesthetics_score: false };
  protected override readonly defaults = { numInferenceSteps: 50, guidanceScale: 5, strength: 0.3 };

  constructor(components: StableDiffusionXLComponents) {
    super(components, StableDiffusionXLImg2ImgPipeline);
  }

  /** Loads a checkpoint, as StableDiffusionPipeline.fromPretrained does: of the base model or of the refiner. */
  static fromPretrained(
    idOrDir: string,
    options: FromPretrainedOptions<StableDiffusionXLComponents> = {},
  ): Promise<StableDiffusionXLImg2ImgPipeline> {
    return loadPipeline(StableDiffusionXLImg2ImgPipeline, idOrDir, options);
  }

  protected get checks(): Readonly<Record<string, Check>> {
    const own = { image: IMAGE, strength: STRENGTH, denoisingStart: SHARE };
    return { ...STABLE_DIFFUSION_XL_CHECKS, ...AESTHETIC_CHECKS, ...own };
  }

  protected override check(_plan: Plan, { image }: StableDiffusionXLImg2ImgOptions): void {
    expectThat(image !== undefined, this.className, 'image', 'a picture to begin with', image);
  }

  protected override schedule(options: StableDiffusionXLImg2ImgOptions): StepRange {
    const begin = takeLastPart(this, { ...this.defaults, ...options });
    return { begin, end: this.endOf(begin, options) };
  }

  protected start(plan: Plan, { image, denoisingStart }: StableDiffusionXLImg2ImgOptions): Promise<Start> {
    return startFromImage(this, plan, image, { addNoise: denoisingStart === undefined });
  }

  protected timeIds(branch: Branch, size: SizePair, options: StableDiffusionXLImg2ImgOptions): number[] {
    return imageToImageIds(branch, size, { ...options, scores: this.config.requires_aesthetics_score! });
  }
}
