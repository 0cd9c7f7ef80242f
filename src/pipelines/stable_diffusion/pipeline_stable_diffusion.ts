import type { FromPretrainedOptions } from '../common/components.js';
import type { Plan, Start } from '../common/denoising_pipeline.js';
import { loadPipeline } from '../common/diffusion_pipeline.js';
import { checkGivenLatents, latentShape, prepareLatents } from '../common/latents.js';
import { type Check, type Checks, type SizeOptions, sizeChecks } from '../common/options.js';
import { pictureSize } from './outdated_configs.js';
import {
  STABLE_DIFFUSION_CHECKS,
  StableDiffusionBase,
  type StableDiffusionBaseOptions,
} from './stable_diffusion_base.js';
import type { StableDiffusionComponents } from './stable_diffusion_components.js';

/** diffusers' options of StableDiffusionPipeline.__call__, in camelCase. */
export interface StableDiffusionOptions extends StableDiffusionBaseOptions, SizeOptions {}

/**
 * Text to picture with Stable Diffusion 1.x and 2.x (diffusers/pipelines/stable_diffusion/pipeline_stable_diffusion.py;
 * Rombach et al. 2022). An instance is a function: `const { images } = await pipe('a red circle', { seed: 0 })`.
 * Calls that overlap run one after another. There is no safety checker.
 */
export class StableDiffusionPipeline<
  O extends StableDiffusionOptions = StableDiffusionOptions,
> extends StableDiffusionBase<O> {
  static readonly className: string = 'StableDiffusionPipeline';

  /** @param Pipeline the class that saving and messages name, and its table of components */
  constructor(
    components: StableDiffusionComponents,
    Pipeline: Pick<typeof StableDiffusionPipeline, 'className' | 'componentTable'> = StableDiffusionPipeline,
  ) {
    super(components, Pipeline);
  }

  /**
   * Loads a checkpoint in diffusers' layout.
   *
   * @param idOrDir a directory with model_index.json, or the id of a repository on the Hugging Face hub
   * @param options how to load, and components to take in place of the checkpoint's
   * @throws ConfigError, CheckpointError, StateDictError, DownloadError that say what is wrong with it
   */
  static fromPretrained(
    idOrDir: string,
    options: FromPretrainedOptions<StableDiffusionComponents> = {},
  ): Promise<StableDiffusionPipeline> {
    return loadPipeline(StableDiffusionPipeline, idOrDir, options);
  }

  protected get checks(): Readonly<Record<string, Check>> {
    const checks: Checks<StableDiffusionOptions> = { ...STABLE_DIFFUSION_CHECKS, ...sizeChecks(this.vae.scaleFactor) };
    return checks;
  }

  protected override check(plan: Plan, { latents, ...size }: O): void {
    checkGivenLatents(this.className, latents, this.latentShape(plan, size));
  }

  protected start(plan: Plan, { latents: noise, ...size }: O): Start {
    const shape = this.latentShape(plan, size);
    return { latents: prepareLatents(this.scheduler, shape, plan.noise.generator, { noise }) };
  }

  private latentShape({ pictures }: Plan, options: SizeOptions): [number, number, number, number] {
    return latentShape(this.className, this.vae, { pictures, ...pictureSize(this, options) });
  }
}
