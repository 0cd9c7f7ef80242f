import { ConfigError } from '../../errors.js';
import type { FromPretrainedOptions } from '../common/components.js';
import type { StepRange } from '../common/denoising_pipeline.js';
import { loadPipeline } from '../common/diffusion_pipeline.js';
import { GUIDANCE_CHECKS, type GuidanceOptions } from '../common/guidance.js';
import { type Check, COUNT } from '../common/options.js';
import { applySchedule } from '../common/schedule.js';
import { type StableDiffusionOptions, StableDiffusionPipeline } from '../stable_diffusion/pipeline_stable_diffusion.js';
import type { StableDiffusionComponents } from '../stable_diffusion/stable_diffusion_components.js';

/** What the calls of guided models have beside guidance itself: there is no second half, and the scheduler's noise is its own. */
const UNUSED = ['negativePrompt', 'negativePromptEmbeds', 'sigmas', 'eta'] as const;
const OTHERS: readonly string[] = [...Object.keys(GUIDANCE_CHECKS), ...UNUSED];

/** diffusers' options of LatentConsistencyModelPipeline.__call__, in camelCase. */
export interface LatentConsistencyModelOptions
  extends Omit<StableDiffusionOptions, keyof GuidanceOptions | (typeof UNUSED)[number]> {
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

  /** @throws ConfigError when the UNet was not distilled: it does not take the guidance scale */
  constructor(components: StableDiffusionComponents) {
    super(components, LatentConsistencyModelPipeline);
    if (this.unet.parsed.timeCondProjDim === null) {
      throw new ConfigError(
        'LatentConsistencyModelPipeline needs a UNet that takes the guidance scale (time_cond_proj_dim), got one that ' +
          'does not; StableDiffusionPipeline draws with it, in few steps, too, with an LCMScheduler',
      );
    }
  }

  /** Loads a checkpoint, as StableDiffusionPipeline.fromPretrained does. */
  static override fromPretrained(
    idOrDir: string,
    options: FromPretrainedOptions<StableDiffusionComponents> = {},
  ): Promise<LatentConsistencyModelPipeline> {
    return loadPipeline(LatentConsistencyModelPipeline, idOrDir, options);
  }

  protected override get checks(): Readonly<Record<string, Check>> {
    const rows = Object.entries(super.checks).filter(([name]) => !OTHERS.includes(name));
    return { ...Object.fromEntries(rows), originalInferenceSteps: COUNT };
  }

  protected override schedule(options: LatentConsistencyModelOptions): StepRange {
    const { numInferenceSteps = this.defaults.numInferenceSteps, timesteps, originalInferenceSteps } = options;
    const settings = { numInferenceSteps, timesteps, originalInferenceSteps };
    return { begin: applySchedule(this.className, this.scheduler, settings) };
  }
}
