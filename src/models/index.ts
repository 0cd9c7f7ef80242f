export { Autoencoder, type AutoencoderConfig, type LatentDistribution } from './autoencoders/autoencoder.js';
export { AutoencoderKL, DiagonalGaussianDistribution } from './autoencoders/autoencoder_kl.js';
export { AutoencoderTiny } from './autoencoders/autoencoder_tiny.js';
export {
  BasicTransformerBlock,
  type TransformerBlockConfig,
  type TransformerInputs,
} from './blocks/basic_transformer_block.js';
export { FeedForward } from './blocks/feed_forward.js';
export {
  type ConfigJson,
  type FromConfigOptions,
  type LoadModelOptions,
  Model,
  type ModelOptions,
  type SaveOptions,
} from './model.js';
export { type LoadOptions, loadStateDict, matchStateDict } from './model_loading.js';
export { CLIPTextModel, type CLIPTextOutput } from './text_encoders/clip_text_model.js';
export { CLIPTextModelWithProjection } from './text_encoders/clip_text_model_with_projection.js';
export { UNet2DConditionModel, type UNetInputs } from './unets/unet_2d_condition.js';
