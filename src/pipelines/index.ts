export type { PipelineCall, Prompt } from './common/callable.js';
export type { FromPretrainedOptions, LoadProgress } from './common/components.js';
export { type Branch, Conditioning, type ConditioningTensors, type Conditions } from './common/conditioning.js';
export {
  type Denoiser,
  type DenoisingLoop,
  denoisingLoop,
  type LoopStep,
  runLoop,
} from './common/denoising_loop.js';
export { DiffusionPipeline } from './common/diffusion_pipeline.js';
export {
  classifierFreeGuidance,
  type GuidanceOptions,
  GuidedDenoiser,
  type NegativeGuidanceOptions,
} from './common/guidance.js';
export {
  type ImageInput,
  type PreprocessOptions,
  type RawImage,
  VaeImageProcessor,
  type VaeImageProcessorOptions,
} from './common/image_processor.js';
export { packLatents, unpackLatents } from './common/latents.js';
export { randomSeed } from './common/noise.js';
export type {
  DenoisingProgress,
  DenoisingStep,
  GenerationOptions,
  Images,
  Output,
  OutputType,
  StepChanges,
  StepDecision,
  Timings,
} from './common/options.js';
export { applyRedrawing, type Redrawing, redraw, withInputs } from './common/redraw.js';
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
export type { StableDiffusionComponents } from './stable_diffusion/stable_diffusion_components.js';
export { TINY_SHAPES } from './tiny_shapes.js';
