import type { ControlNetModel, MultiControlNetModel } from '../../models/index.js';
import type { FromPretrainedOptions } from '../common/components.js';
import type { Plan, Start } from '../common/denoising_pipeline.js';
import { loadPipeline } from '../common/diffusion_pipeline.js';
import { IMAGE } from '../common/image_latents.js';
import { checkGivenLatents, latentShape, prepareLatents } from '../common/latents.js';
import { type SizeOptions, sizeChecks } from '../common/options.js';
import {
  STABLE_DIFFUSION_CHECKS,
  StableDiffusionBase,
  type StableDiffusionBaseOptions,
} from '../stable_diffusion/stable_diffusion_base.js';
import {
  CONTROLNET_CHECKS,
  type ControlNetOptions,
  type ControlPictures,
  checkControl,
  netsOf,
  startControlled,
} from './control.js';
import {
  CONTROLNET_COMPONENTS,
  checkControlNets,
  type StableDiffusionControlNetComponents,
  withOneControlNet,
} from './controlnet_components.js';

/** diffusers' options of StableDiffusionControlNetPipeline.__call__, in camelCase. */
export interface StableDiffusionControlNetOptions extends StableDiffusionBaseOptions, SizeOptions, ControlNetOptions {
  /** The control picture (edges, depths, a pose, ...); for several ControlNets a list with one for each. */
  image: ControlPictures;
}

/**
 * Text to picture, with a control picture that ControlNets follow (diffusers'
 * pipelines/controlnet/pipeline_controlnet.py; Zhang et al. 2023). Pictures have the control picture's size, cut to a
 * multiple of 8, unless told otherwise.
 */
export class StableDiffusionControlNetPipeline extends StableDiffusionBase<
  StableDiffusionControlNetOptions,
  StableDiffusionControlNetComponents
> {
  static readonly className: string = 'StableDiffusionControlNetPipeline';
  static override readonly componentTable = CONTROLNET_COMPONENTS;

  /** @throws ConfigError for a ControlNet that was made for another UNet */
  constructor(components: StableDiffusionControlNetComponents) {
    super(withOneControlNet(components), StableDiffusionControlNetPipeline);
    checkControlNets(netsOf(this), this.unet);
  }

  /** Loads a checkpoint with its ControlNet, or any of Stable Diffusion with `controlnet` in the options. */
  static fromPretrained(
    idOrDir: string,
    options: FromPretrainedOptions<StableDiffusionControlNetComponents> = {},
  ): Promise<StableDiffusionControlNetPipeline> {
    return loadPipeline(StableDiffusionControlNetPipeline, idOrDir, options);
  }

  get controlnet(): ControlNetModel | MultiControlNetModel {
    return this.components.controlnet as ControlNetModel | MultiControlNetModel;
  }

  protected get checks() {
    return { ...STABLE_DIFFUSION_CHECKS, ...sizeChecks(this.vae.scaleFactor), ...CONTROLNET_CHECKS, image: IMAGE };
  }

  protected override check(_plan: Plan, options: StableDiffusionControlNetOptions): void {
    checkControl(this, { option: 'image', pictures: options.image }, options);
  }

  protected async start(plan: Plan, options: StableDiffusionControlNetOptions): Promise<Start> {
    const { image: pictures, height, width, latents: noise } = options;
    const input = { option: 'image', pictures, size: { height, width } } as const;
    return startControlled(this, plan, input, options, (size) => {
      const shape = latentShape(this.className, this.vae, { pictures: plan.pictures, ...size });
      checkGivenLatents(this.className, noise, shape);
      return { latents: prepareLatents(this.scheduler, shape, plan.noise.generator, { noise }) };
    });
  }
}
