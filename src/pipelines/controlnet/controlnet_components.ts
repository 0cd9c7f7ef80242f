import { ConfigError } from '../../errors.js';
import { ControlNetModel, MultiControlNetModel, type UNet2DConditionModel } from '../../models/index.js';
import { type ComponentTable, component } from '../common/components.js';
import {
  STABLE_DIFFUSION_COMPONENTS,
  type StableDiffusionComponents,
} from '../stable_diffusion/stable_diffusion_components.js';

/** One ControlNet, or several that work together. */
export type ControlNets = ControlNetModel | MultiControlNetModel | readonly ControlNetModel[];

/** The parts of a Stable Diffusion 1.x or 2.x pipeline with control. */
export interface StableDiffusionControlNetComponents extends StableDiffusionComponents {
  controlnet: ControlNets;
}

const isControlNet = (value: unknown) => value instanceof ControlNetModel;
const isUsable = (value: unknown) =>
  isControlNet(value) ||
  value instanceof MultiControlNetModel ||
  (Array.isArray(value) && value.length > 0 && value.every(isControlNet));

/** The row of the ControlNets. */
export const controlnetComponent = component<ControlNetModel | MultiControlNetModel>(
  'controlnet',
  { ControlNetModel, MultiControlNetModel },
  { check: [isUsable, 'a ControlNetModel, or a list of them'] },
);

export const CONTROLNET_COMPONENTS = {
  ...STABLE_DIFFUSION_COMPONENTS,
  controlnet: controlnetComponent,
} as ComponentTable<StableDiffusionControlNetComponents>;

/** Components whose list of ControlNets is one MultiControlNetModel. */
export function withOneControlNet<C extends { controlnet: ControlNets }>(components: C): C {
  const { controlnet } = components;
  return Array.isArray(controlnet) && isUsable(controlnet)
    ? { ...components, controlnet: new MultiControlNetModel(controlnet as readonly ControlNetModel[]) }
    : components;
}

/** @throws ConfigError for a ControlNet that was made for another UNet */
export function checkControlNets(nets: readonly ControlNetModel[], unet: UNet2DConditionModel): void {
  for (const { parsed } of nets) {
    const shape = ({ blockOutChannels, crossAttentionDim, layersPerBlock }: UNet2DConditionModel['parsed']) =>
      `channels ${blockOutChannels}, layers ${layersPerBlock}, cross_attention_dim ${crossAttentionDim[0]}`;
    if (shape(parsed) !== shape(unet.parsed)) {
      throw new ConfigError(
        `the ControlNet was made for another UNet: it has ${shape(parsed)}, the UNet ${shape(unet.parsed)}`,
      );
    }
  }
}
