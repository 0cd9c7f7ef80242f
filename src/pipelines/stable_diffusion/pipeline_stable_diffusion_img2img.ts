import { expectThat } from '../../utils/check.js';
import type { FromPretrainedOptions } from '../common/components.js';
import type { Plan, Start, StepRange } from '../common/denoising_pipeline.js';
import { loadPipeline } from '../common/diffusion_pipeline.js';
import { IMAGE, type Pictures, STRENGTH, startFromImage } from '../common/image_latents.js';
import { applySchedule } from '../common/schedule.js';
import {
  STABLE_DIFFUSION_CHECKS,
  StableDiffusionBase,
  type StableDiffusionBaseOptions,
} from './stable_diffusion_base.js';
import type { StableDiffusionComponents } from './stable_diffusion_components.js';

/** diffusers' options of StableDiffusionImg2ImgPipeline.__call__, in camelCase. */
export interface StableDiffusionImg2ImgOptions extends StableDiffusionBaseOptions {
  /** Where to begin: one picture for all, or as many as divide those to draw. Sizes are cut to a multiple of 8. */
  image: Pictures;
  /** How much of the picture is drawn anew, 0 to 1: the share of the steps that is taken. Default 0.8. */
  strength?: number;
}

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

  protected override schedule(options: StableDiffusionImg2ImgOptions): StepRange {
    const { numInferenceSteps, strength } = { ...this.defaults, ...options };
    const { timesteps, sigmas } = options;
    const settings = { numInferenceSteps, timesteps, sigmas, strength };
    return { begin: applySchedule(this.className, this.scheduler, settings) };
  }

  protected start(plan: Plan, { image }: StableDiffusionImg2ImgOptions): Promise<Start> {
    return startFromImage(this, plan, image);
  }
}
