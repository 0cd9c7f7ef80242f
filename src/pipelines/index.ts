export type { AdapterLoader, WithLora } from './common/adapter_loader.js';
export type { Callable, PipelineCall, Prompt } from './common/callable.js';
export type {
  ComponentLoadOptions,
  ComponentSpec,
  ComponentTable,
  FromPretrainedOptions,
  LoadOptions,
  LoadProgress,
  PipelineConfig,
} from './common/components.js';
export { type Branch, Conditioning, type ConditioningTensors, type Conditions } from './common/conditioning.js';
export {
  type Denoiser,
  type DenoisingLoop,
  denoisingLoop,
  type LoopStep,
  type Previewer,
  runLoop,
} from './common/denoising_loop.js';
export { type DenoisingComponents, type DenoisingOptions, DenoisingPipeline } from './common/denoising_pipeline.js';
export { DiffusionPipeline, type LoadedPipeline, type WithScheduler } from './common/diffusion_pipeline.js';
export type { RecordedPipeline, SchedulerSettings, VaeSettings } from './common/generation_metadata.js';
export {
  type CombineBranches,
  classifierFreeGuidance,
  type GuidanceOptions,
  GuidedDenoiser,
  type GuidedDenoiserOptions,
  type ModelCall,
  type NegativeGuidanceOptions,
  type Predictions,
} from './common/guidance.js';
export type { Pictures } from './common/image_latents.js';
export {
  type ImageInput,
  type PreprocessOptions,
  type RawImage,
  type ResizeMode,
  VaeImageProcessor,
  type VaeImageProcessorOptions,
} from './common/image_processor.js';
export type { InpaintingOptions } from './common/inpainting.js';
export { packLatents, unpackLatents } from './common/latents.js';
export { randomSeed } from './common/noise.js';
export type {
  Check,
  DenoisingProgress,
  DenoisingStep,
  GenerationOptions,
  Images,
  LoopOptions,
  Output,
  OutputType,
  PreviewSetting,
  SizeOptions,
  StepChanges,
  StepDecision,
  Timings,
} from './common/options.js';
export {
  applyRedrawing,
  loadRedrawingAdapters,
  type RecordedEmbedding,
  type RecordedLora,
  type Redrawing,
  redraw,
  withInputs,
} from './common/redraw.js';
export type { ControlNetOptions, ControlPictures } from './controlnet/control.js';
export type { ControlNets, StableDiffusionControlNetComponents } from './controlnet/controlnet_components.js';
export {
  type StableDiffusionControlNetOptions,
  StableDiffusionControlNetPipeline,
} from './controlnet/pipeline_controlnet.js';
export {
  type StableDiffusionControlNetImg2ImgOptions,
  StableDiffusionControlNetImg2ImgPipeline,
} from './controlnet/pipeline_controlnet_img2img.js';
export {
  type StableDiffusionControlNetInpaintOptions,
  StableDiffusionControlNetInpaintPipeline,
} from './controlnet/pipeline_controlnet_inpaint.js';
export {
  type LatentConsistencyModelOptions,
  LatentConsistencyModelPipeline,
} from './latent_consistency_models/pipeline_latent_consistency_text2img.js';
export type { PromptOptions, PromptSyntax } from './stable_diffusion/encode_prompt.js';
export { type StableDiffusionOptions, StableDiffusionPipeline } from './stable_diffusion/pipeline_stable_diffusion.js';
export {
  type StableDiffusionImg2ImgOptions,
  StableDiffusionImg2ImgPipeline,
} from './stable_diffusion/pipeline_stable_diffusion_img2img.js';
export {
  type StableDiffusionInpaintOptions,
  StableDiffusionInpaintPipeline,
} from './stable_diffusion/pipeline_stable_diffusion_inpaint.js';
export {
  type EncodePromptOptions,
  StableDiffusionBase,
  type StableDiffusionBaseOptions,
} from './stable_diffusion/stable_diffusion_base.js';
export type { InputChannels, StableDiffusionComponents } from './stable_diffusion/stable_diffusion_components.js';
export type { XLPromptOptions } from './stable_diffusion_xl/encode_prompt.js';
export {
  type StableDiffusionXLOptions,
  StableDiffusionXLPipeline,
} from './stable_diffusion_xl/pipeline_stable_diffusion_xl.js';
export {
  type StableDiffusionXLImg2ImgOptions,
  StableDiffusionXLImg2ImgPipeline,
} from './stable_diffusion_xl/pipeline_stable_diffusion_xl_img2img.js';
export {
  type StableDiffusionXLInpaintOptions,
  StableDiffusionXLInpaintPipeline,
} from './stable_diffusion_xl/pipeline_stable_diffusion_xl_inpaint.js';
export {
  StableDiffusionXLBase,
  type StableDiffusionXLBaseOptions,
  type XLEncodePromptOptions,
  type XLPipelineClass,
  type XLPromptEmbeds,
} from './stable_diffusion_xl/stable_diffusion_xl_base.js';
export type { StableDiffusionXLComponents } from './stable_diffusion_xl/stable_diffusion_xl_components.js';
export type { AestheticOptions, SizePair, TimeIdOptions } from './stable_diffusion_xl/time_ids.js';
export { TINY_SHAPES } from './tiny_shapes.js';
