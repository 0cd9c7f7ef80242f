import type { FromPretrainedOptions } from '../common/components.js';
import type { Plan, Start, StepRange } from '../common/denoising_pipeline.js';
import { loadPipeline } from '../common/diffusion_pipeline.js';
import { checkInpainting, type InpaintingOptions, inpaintingChecks, startInpainting } from '../common/inpainting.js';
import { applySchedule } from '../common/schedule.js';
import { pictureSize } from './outdated_configs.js';
import {
  STABLE_DIFFUSION_CHECKS,
  StableDiffusionBase,
  type StableDiffusionBaseOptions,
} from './stable_diffusion_base.js';
import { type StableDiffusionComponents, withMask } from './stable_diffusion_components.js';

/** diffusers' options of StableDiffusionInpaintPipeline.__call__, in camelCase; `strength` is 1 by default. */
export interface StableDiffusionInpaintOptions extends StableDiffusionBaseOptions, InpaintingOptions {}

/**
 * Draws parts of a picture anew, with Stable Diffusion 1.x and 2.x (diffusers'
 * pipelines/stable_diffusion/pipeline_stable_diffusion_inpaint.py). UNets of 9 channels are told of the mask and of the
 * masked picture; with UNets of 4 channels the picture is put back after each step where it is not masked (RePaint,
 * Lugmayr et al. 2022, without its resampling).
 */
export class StableDiffusionInpaintPipeline extends StableDiffusionBase<StableDiffusionInpaintOptions> {
  static readonly className: string = 'StableDiffusionInpaintPipeline';
  static readonly inputChannels = withMask;
  protected override readonly defaults = { numInferenceSteps: 50, guidanceScale: 7.5, strength: 1 };

  constructor(components: StableDiffusionComponents) {
    super(components, StableDiffusionInpaintPipeline);
  }

  /** Loads a checkpoint, as StableDiffusionPipeline.fromPretrained does; one for inpainting or any other. */
  static fromPretrained(
    idOrDir: string,
    options: FromPretrainedOptions<StableDiffusionComponents> = {},
  ): Promise<StableDiffusionInpaintPipeline> {
    return loadPipeline(StableDiffusionInpaintPipeline, idOrDir, options);
  }

  protected get checks() {
    return { ...STABLE_DIFFUSION_CHECKS, ...inpaintingChecks(this.vae.scaleFactor) };
  }

  protected override check(plan: Plan, options: StableDiffusionInpaintOptions): void {
    checkInpainting(this, plan, this.withDefaults(options));
  }

  protected override schedule(options: StableDiffusionInpaintOptions): StepRange {
    const { numInferenceSteps, strength, timesteps, sigmas } = { ...this.defaults, ...options };
    const settings = { numInferenceSteps, timesteps, sigmas, strength };
    return { begin: applySchedule(this.className, this.scheduler, settings) };
  }

  protected start(plan: Plan, options: StableDiffusionInpaintOptions): Promise<Start> {
    return startInpainting(this, plan, this.withDefaults(options));
  }

  private withDefaults(options: StableDiffusionInpaintOptions) {
    return { strength: this.defaults.strength, ...options, ...pictureSize(this, options) };
  }
}
