export { Autoencoder, type AutoencoderConfig, type LatentDistribution } from './autoencoders/autoencoder.js';
export { AutoencoderKL, DiagonalGaussianDistribution } from './autoencoders/autoencoder_kl.js';
export type { AutoencoderKLConfig } from './autoencoders/autoencoder_kl_config.js';
export { AutoencoderTiny } from './autoencoders/autoencoder_tiny.js';
export type { AutoencoderTinyConfig } from './autoencoders/autoencoder_tiny_config.js';
export {
  BasicTransformerBlock,
  type TransformerBlockConfig,
  type TransformerInputs,
} from './blocks/basic_transformer_block.js';
export { FeedForward } from './blocks/feed_forward.js';
export type { ResnetBlock2D, ResnetConfig } from './blocks/resnet.js';
export { type ControlNetInputs, ControlNetModel, type ControlNetOutput } from './controlnets/controlnet.js';
export type { ControlNetConfig } from './controlnets/controlnet_config.js';
export { type MultiControlNetInputs, MultiControlNetModel } from './controlnets/multicontrolnet.js';
export {
  type ConfigJson,
  type FromConfigOptions,
  type LoadModelOptions,
  Model,
  type ModelOptions,
  type SaveOptions,
} from './model.js';
export { type LoadStateDictOptions, loadStateDict, matchStateDict } from './model_loading.js';
export type { SingleFileOptions } from './single_file.js';
export type { CLIPTextConfig } from './text_encoders/clip_text_config.js';
export { CLIPTextModel, type CLIPTextOutput } from './text_encoders/clip_text_model.js';
export { CLIPTextModelWithProjection } from './text_encoders/clip_text_model_with_projection.js';
export type { Transformer2DConfig, Transformer2DModel } from './transformers/transformer_2d.js';
export type {
  BlockConfig,
  BlockInputs,
  DownBlock2D,
  DownBlockConfig,
  MidBlock2D,
  MidBlockConfig,
  UNetBlockLayer,
  UpBlock2D,
  UpBlockConfig,
} from './unets/unet_2d_blocks.js';
export { UNet2DConditionModel, type UNetInputs } from './unets/unet_2d_condition.js';
export type { UNetConfig } from './unets/unet_2d_condition_config.js';
export type { UNetConditions } from './unets/unet_conditioning.js';
export type { DownPathResiduals, PromptInputs } from './unets/unet_down_path.js';
