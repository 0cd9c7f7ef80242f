import type { FromPretrainedOptions, PipelineConfig } from '../common/components.js';
import type { Branch } from '../common/conditioning.js';
import type { Plan, Start, StepRange } from '../common/denoising_pipeline.js';
import { loadPipeline } from '../common/diffusion_pipeline.js';
import { checkInpainting, type InpaintingOptions, inpaintingChecks, startInpainting } from '../common/inpainting.js';
import { type Check, SHARE } from '../common/options.js';
import { withMask } from '../stable_diffusion/stable_diffusion_components.js';
import { takeLastPart } from './last_part.js';
import {
  STABLE_DIFFUSION_XL_CHECKS,
  StableDiffusionXLBase,
  type StableDiffusionXLBaseOptions,
} from './stable_diffusion_xl_base.js';
import type { StableDiffusionXLComponents } from './stable_diffusion_xl_components.js';
import { AESTHETIC_CHECKS, type AestheticOptions, imageToImageIds, type SizePair } from './time_ids.js';
import { trainedPictureSize } from './trained_size.js';

/** diffusers' options of StableDiffusionXLInpaintPipeline.__call__, in camelCase; `strength` is 0.9999 by default. */
export interface StableDiffusionXLInpaintOptions
  extends StableDiffusionXLBaseOptions,
    AestheticOptions,
    InpaintingOptions {
  /** Share of the schedule, 0 to 1, at which a base model stopped (`denoisingEnd`); takes the place of `strength`. */
  denoisingStart?: number;
}

/**
 * Draws parts of a picture anew, with Stable Diffusion XL (diffusers'
 * pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl_inpaint.py).
 */
export class StableDiffusionXLInpaintPipeline extends StableDiffusionXLBase<StableDiffusionXLInpaintOptions> {
  static readonly className: string = 'StableDiffusionXLInpaintPipeline';
  static readonly inputChannels = withMask;
  override config: PipelineConfig = { force_zeros_for_empty_prompt: true, requires_aesthetics_score: false };
  protected override readonly defaults = { numInferenceSteps: 50, guidanceScale: 7.5, strength: 0.9999 };

  constructor(components: StableDiffusionXLComponents) {
    super(components, StableDiffusionXLInpaintPipeline);
  }

  /** Loads a checkpoint, as StableDiffusionPipeline.fromPretrained does; one for inpainting or any other. */
  static fromPretrained(
    idOrDir: string,
    options: FromPretrainedOptions<StableDiffusionXLComponents> = {},
  ): Promise<StableDiffusionXLInpaintPipeline> {
    return loadPipeline(StableDiffusionXLInpaintPipeline, idOrDir, options);
  }

  protected get checks(): Readonly<Record<string, Check>> {
    const own = { ...inpaintingChecks(this.vae.scaleFactor), denoisingStart: SHARE };
    return { ...STABLE_DIFFUSION_XL_CHECKS, ...AESTHETIC_CHECKS, ...own };
  }

  protected override check(plan: Plan, options: StableDiffusionXLInpaintOptions): void {
    checkInpainting(this, plan, this.withDefaults(options));
  }

  protected override schedule(options: StableDiffusionXLInpaintOptions): StepRange {
    const begin = takeLastPart(this, { ...this.defaults, ...options });
    return { begin, end: this.endOf(begin, options) };
  }

  protected start(plan: Plan, options: StableDiffusionXLInpaintOptions): Promise<Start> {
    return startInpainting(this, plan, this.withDefaults(options));
  }

  protected timeIds(branch: Branch, size: SizePair, options: StableDiffusionXLInpaintOptions): number[] {
    return imageToImageIds(branch, size, { ...options, scores: this.config.requires_aesthetics_score! });
  }

  private withDefaults(options: StableDiffusionXLInpaintOptions) {
    const { strength } = this.defaults;
    return {
      strength,
      addNoise: options.denoisingStart === undefined,
      ...options,
      ...trainedPictureSize(this, options),
    };
  }
}
