import type { FromPretrainedOptions } from '../common/components.js';
import type { Branch } from '../common/conditioning.js';
import type { Plan, Start, StepRange } from '../common/denoising_pipeline.js';
import { loadPipeline } from '../common/diffusion_pipeline.js';
import { checkGivenLatents, latentShape, prepareLatents } from '../common/latents.js';
import { type Check, type SizeOptions, sizeChecks } from '../common/options.js';
import {
  STABLE_DIFFUSION_XL_CHECKS,
  StableDiffusionXLBase,
  type StableDiffusionXLBaseOptions,
} from './stable_diffusion_xl_base.js';
import type { StableDiffusionXLComponents } from './stable_diffusion_xl_components.js';
import { type SizePair, textToImageIds } from './time_ids.js';
import { trainedPictureSize } from './trained_size.js';

/** diffusers' options of StableDiffusionXLPipeline.__call__, in camelCase. */
export interface StableDiffusionXLOptions extends StableDiffusionXLBaseOptions, SizeOptions {}

/**
 * Text to picture with Stable Diffusion XL, SDXL Turbo, Lightning and Hyper (diffusers'
 * pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl.py; Podell et al. 2023).
 */
export class StableDiffusionXLPipeline<
  O extends StableDiffusionXLOptions = StableDiffusionXLOptions,
> extends StableDiffusionXLBase<O> {
  static readonly className: string = 'StableDiffusionXLPipeline';
  protected override readonly defaults = { numInferenceSteps: 50, guidanceScale: 5 };

  /** @param Pipeline the class that saving and messages name */
  constructor(components: StableDiffusionXLComponents, Pipeline: { className: string } = StableDiffusionXLPipeline) {
    super(components, Pipeline);
  }

  /** Loads a checkpoint, as StableDiffusionPipeline.fromPretrained does. */
  static fromPretrained(
    idOrDir: string,
    options: FromPretrainedOptions<StableDiffusionXLComponents> = {},
  ): Promise<StableDiffusionXLPipeline> {
    return loadPipeline(StableDiffusionXLPipeline, idOrDir, options);
  }

  protected get checks(): Readonly<Record<string, Check>> {
    return { ...STABLE_DIFFUSION_XL_CHECKS, ...sizeChecks(this.vae.scaleFactor) };
  }

  protected override check(plan: Plan, options: O): void {
    checkGivenLatents(this.className, options.latents, this.latentShape(plan, options));
  }

  protected override schedule(options: O): StepRange {
    const { begin } = super.schedule(options);
    this.scheduler.setBeginIndex(begin);
    return { begin, end: this.endOf(begin, options) };
  }

  protected start(plan: Plan, options: O): Start {
    const noise = { noise: options.latents };
    return { latents: prepareLatents(this.scheduler, this.latentShape(plan, options), plan.noise.generator, noise) };
  }

  protected timeIds(branch: Branch, size: SizePair, options: O): number[] {
    return textToImageIds(branch, size, options);
  }

  private latentShape({ pictures }: Plan, options: SizeOptions): [number, number, number, number] {
    return latentShape(this.className, this.vae, { pictures, ...trainedPictureSize(this, options) });
  }
}
