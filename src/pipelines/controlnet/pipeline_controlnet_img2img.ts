import type { ControlNetModel, MultiControlNetModel } from '../../models/index.js';
import { expectThat } from '../../utils/check.js';
import type { FromPretrainedOptions } from '../common/components.js';
import type { Plan, Start, StepRange } from '../common/denoising_pipeline.js';
import { loadPipeline } from '../common/diffusion_pipeline.js';
import { IMAGE, type Pictures, STRENGTH, startFromImage } from '../common/image_latents.js';
import { sizeChecks } from '../common/options.js';
import { applySchedule } from '../common/schedule.js';
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

/** diffusers' options of StableDiffusionControlNetImg2ImgPipeline.__call__, in camelCase; the scale is 0.8 by default. */
export interface StableDiffusionControlNetImg2ImgOptions extends StableDiffusionBaseOptions, ControlNetOptions {
  /** Where to begin: one picture for all, or as many as divide those to draw. */
  image: Pictures;
  /** The control picture (edges, depths, a pose, ...); for several ControlNets a list with one for each. */
  controlImage: ControlPictures;
  /** Size in pixels that both pictures are brought to. Default: their own, cut to a multiple of 8. */
  height?: number;
  width?: number;
  /** How much of the picture is drawn anew, 0 to 1: the share of the steps that is taken. Default 0.8. */
  strength?: number;
}

/**
 * Picture to picture, with a control picture that ControlNets follow (diffusers'
 * pipelines/controlnet/pipeline_controlnet_img2img.py; Zhang et al. 2023).
 */
export class StableDiffusionControlNetImg2ImgPipeline extends StableDiffusionBase<
  StableDiffusionControlNetImg2ImgOptions,
  StableDiffusionControlNetComponents
> {
  static readonly className: string = 'StableDiffusionControlNetImg2ImgPipeline';
  static override readonly componentTable = CONTROLNET_COMPONENTS;
  protected override readonly defaults = {
    numInferenceSteps: 50,
    guidanceScale: 7.5,
    strength: 0.8,
    controlnetConditioningScale: 0.8,
  };

  /** @throws ConfigError for a ControlNet that was made for another UNet */
  constructor(components: StableDiffusionControlNetComponents) {
    super(withOneControlNet(components), StableDiffusionControlNetImg2ImgPipeline);
    checkControlNets(netsOf(this), this.unet);
  }

  /** Loads a checkpoint, as StableDiffusionControlNetPipeline.fromPretrained does: the parts are the same. */
  static fromPretrained(
    idOrDir: string,
    options: FromPretrainedOptions<StableDiffusionControlNetComponents> = {},
  ): Promise<StableDiffusionControlNetImg2ImgPipeline> {
    return loadPipeline(StableDiffusionControlNetImg2ImgPipeline, idOrDir, options);
  }

  get controlnet(): ControlNetModel | MultiControlNetModel {
    return this.components.controlnet as ControlNetModel | MultiControlNetModel;
  }

  protected get checks() {
    const { height, width } = sizeChecks(this.vae.scaleFactor);
    const pictures = { image: IMAGE, controlImage: IMAGE, height, width, strength: STRENGTH };
    return { ...STABLE_DIFFUSION_CHECKS, ...CONTROLNET_CHECKS, ...pictures };
  }

  protected override check(_plan: Plan, options: StableDiffusionControlNetImg2ImgOptions): void {
    const { image, controlImage: pictures } = options;
    expectThat(image !== undefined, this.className, 'image', 'a picture to begin with', image);
    checkControl(this, { option: 'controlImage', pictures }, options);
  }

  protected override schedule(options: StableDiffusionControlNetImg2ImgOptions): StepRange {
    const { numInferenceSteps, strength, timesteps, sigmas } = { ...this.defaults, ...options };
    const settings = { numInferenceSteps, timesteps, sigmas, strength };
    return { begin: applySchedule(this.className, this.scheduler, settings) };
  }

  protected start(plan: Plan, options: StableDiffusionControlNetImg2ImgOptions): Promise<Start> {
    const { image, controlImage: pictures, height, width } = options;
    const size = { height, width };
    const input = { option: 'controlImage', pictures, size } as const;
    return startControlled(this, plan, input, { ...this.defaults, ...options }, () =>
      startFromImage(this, plan, image, { size }),
    );
  }
}
