export { AutoencoderKL, DiagonalGaussianDistribution } from './autoencoder_kl.js';
export { CLIPTextModel, type CLIPTextOutput } from './clip_text_model.js';
export { CLIPTextModelWithProjection } from './clip_text_model_with_projection.js';
export {
  type ConfigJson,
  type FromConfigOptions,
  type LoadModelOptions,
  Model,
  type ModelOptions,
  type SaveOptions,
} from './model.js';
export { UNet2DConditionModel, type UNetInputs } from './unet_2d_condition.js';
