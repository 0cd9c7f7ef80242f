import * as tf from '@tensorflow/tfjs-core';
import type { ControlNetModel, MultiControlNetModel } from '../../models/index.js';
import type { FromPretrainedOptions } from '../common/components.js';
import type { Plan, Start, StepRange } from '../common/denoising_pipeline.js';
import { loadPipeline } from '../common/diffusion_pipeline.js';
import { IMAGE, readInputs } from '../common/image_latents.js';
import type { PreprocessOptions } from '../common/image_processor.js';
import {
  checkInpainting,
  type InpaintingCall,
  type InpaintingOptions,
  inpaintingChecks,
  regionOf,
  startInpainting,
} from '../common/inpainting.js';
import { applySchedule } from '../common/schedule.js';
import {
  STABLE_DIFFUSION_CHECKS,
  StableDiffusionBase,
  type StableDiffusionBaseOptions,
} from '../stable_diffusion/stable_diffusion_base.js';
import { withMask } from '../stable_diffusion/stable_diffusion_components.js';
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

/** diffusers' options of StableDiffusionControlNetInpaintPipeline.__call__, in camelCase; the scale is 0.5 by default. */
export interface StableDiffusionControlNetInpaintOptions
  extends StableDiffusionBaseOptions,
    InpaintingOptions,
    ControlNetOptions {
  /** The control picture (edges, depths, a pose, ...); for several ControlNets a list with one for each. */
  controlImage: ControlPictures;
}

/**
 * Draws parts of a picture anew, with a control picture that ControlNets follow (diffusers'
 * pipelines/controlnet/pipeline_controlnet_inpaint.py; Zhang et al. 2023). Pictures have the size of `image`, cut to a
 * multiple of 8, unless told otherwise.
 */
export class StableDiffusionControlNetInpaintPipeline extends StableDiffusionBase<
  StableDiffusionControlNetInpaintOptions,
  StableDiffusionControlNetComponents
> {
  static readonly className: string = 'StableDiffusionControlNetInpaintPipeline';
  static readonly inputChannels = withMask;
  static override readonly componentTable = CONTROLNET_COMPONENTS;
  protected override readonly defaults = {
    numInferenceSteps: 50,
    guidanceScale: 7.5,
    strength: 1,
    controlnetConditioningScale: 0.5,
  };

  /** @throws ConfigError for a ControlNet that was made for another UNet */
  constructor(components: StableDiffusionControlNetComponents) {
    super(withOneControlNet(components), StableDiffusionControlNetInpaintPipeline);
    checkControlNets(netsOf(this), this.unet);
  }

  /** Loads a checkpoint, as StableDiffusionControlNetPipeline.fromPretrained does; one for inpainting or any other. */
  static fromPretrained(
    idOrDir: string,
    options: FromPretrainedOptions<StableDiffusionControlNetComponents> = {},
  ): Promise<StableDiffusionControlNetInpaintPipeline> {
    return loadPipeline(StableDiffusionControlNetInpaintPipeline, idOrDir, options);
  }

  get controlnet(): ControlNetModel | MultiControlNetModel {
    return this.components.controlnet as ControlNetModel | MultiControlNetModel;
  }

  protected get checks() {
    const inpainting = inpaintingChecks(this.vae.scaleFactor);
    return { ...STABLE_DIFFUSION_CHECKS, ...CONTROLNET_CHECKS, ...inpainting, controlImage: IMAGE };
  }

  protected override async check(plan: Plan, options: StableDiffusionControlNetInpaintOptions): Promise<void> {
    checkControl(this, { option: 'controlImage', pictures: options.controlImage }, options);
    checkInpainting(this, plan, await this.withDefaults(plan, options));
  }

  protected override schedule(options: StableDiffusionControlNetInpaintOptions): StepRange {
    const { numInferenceSteps, strength, timesteps, sigmas } = { ...this.defaults, ...options };
    const settings = { numInferenceSteps, timesteps, sigmas, strength };
    return { begin: applySchedule(this.className, this.scheduler, settings) };
  }

  protected async start(plan: Plan, options: StableDiffusionControlNetInpaintOptions): Promise<Start> {
    const call = await this.withDefaults(plan, options);
    const input = {
      option: 'controlImage',
      pictures: options.controlImage,
      size: await regionSize(plan, call),
    } as const;
    return startControlled(this, plan, input, { ...this.defaults, ...options }, () =>
      startInpainting(this, plan, call),
    );
  }

  private async withDefaults(
    plan: Plan,
    options: StableDiffusionControlNetInpaintOptions,
  ): Promise<InpaintingCall & StableDiffusionControlNetInpaintOptions> {
    const { strength } = this.defaults;
    return { strength, ...options, ...(await this.pictureSize(plan, options)) };
  }

  /** The wanted size, or else that of the first picture. */
  private async pictureSize(plan: Plan, { image, height, width }: StableDiffusionControlNetInpaintOptions) {
    const [picture] = image === undefined ? [] : await readInputs(plan, 'image', image);
    const { scaleFactor, parsed } = this.vae;
    const cut = (size = 0) => Math.max(size - (size % scaleFactor), scaleFactor);
    if (picture instanceof tf.Tensor) {
      const [rows = 0, columns = 0, channels] = picture.shape.slice(-3);
      const scale = channels === parsed.latentChannels ? scaleFactor : 1;
      return { height: height ?? cut(rows * scale), width: width ?? cut(columns * scale) };
    }
    const own = picture as { height?: number; width?: number } | undefined;
    return { height: height ?? cut(own?.height), width: width ?? cut(own?.width) };
  }
}

/** What the control picture is brought to: the pictures' size, from the masked region where that is drawn alone. */
async function regionSize(plan: Plan, call: InpaintingCall): Promise<PreprocessOptions> {
  const { height, width, maskImage, paddingMaskCrop } = call;
  if (paddingMaskCrop === undefined) {
    return { height, width };
  }
  const [mask] = await readInputs(plan, 'maskImage', maskImage);
  return { height, width, cropsCoords: await regionOf(mask!, call), resizeMode: 'fill' };
}
