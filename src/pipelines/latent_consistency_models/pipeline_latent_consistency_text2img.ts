import type { FromPretrainedOptions } from '../common/components.js';
import { loadPipeline } from '../common/diffusion_pipeline.js';
import { type Checks, COUNT } from '../common/options.js';
import { applySchedule } from '../common/schedule.js';
import { type StableDiffusionOptions, StableDiffusionPipeline } from '../stable_diffusion/pipeline_stable_diffusion.js';
import type { StableDiffusionComponents } from '../stable_diffusion/stable_diffusion_components.js';

/** diffusers' options of LatentConsistencyModelPipeline.__call__, in camelCase. */
export interface LatentConsistencyModelOptions extends StableDiffusionOptions {
  /** Steps of the schedule that the model was distilled with, among which those that are taken lie. Default: the scheduler's, 50. */
  originalInferenceSteps?: number;
}

/**
 * Text to picture in few steps (diffusers/pipelines/latent_consistency_models/pipeline_latent_consistency_text2img.py;
 * Luo et al. 2023). The guidance scale is an input of the model, so there is no negative prompt and no second half.
 * Defaults: 4 steps, guidance scale 8.5.
 */
export class LatentConsistencyModelPipeline extends StableDiffusionPipeline<LatentConsistencyModelOptions> {
  static override readonly className: string = 'LatentConsistencyModelPipeline';
  protected override readonly defaults = { numInferenceSteps: 4, guidanceScale: 8.5 };

  constructor(components: StableDiffusionComponents) {
    super(components, LatentConsistencyModelPipeline);
  }

  /** Loads a checkpoint, as StableDiffusionPipeline.fromPretrained does. */
  static override fromPretrained(
    idOrDir: string,
    options: FromPretrainedOptions<StableDiffusionComponents> = {},
  ): Promise<LatentConsistencyModelPipeline> {
    return loadPipeline(LatentConsistencyModelPipeline, idOrDir, options);
  }

  protected override get checks(): Checks<LatentConsistencyModelOptions> {
    return { ...super.checks, originalInferenceSteps: COUNT };
  }

  protected override schedule(options: LatentConsistencyModelOptions): number {
    const { numInferenceSteps = this.defaults.numInferenceSteps, timesteps, originalInferenceSteps } = options;
    return applySchedule(this.className, this.scheduler, { numInferenceSteps, timesteps, originalInferenceSteps });
  }
}
