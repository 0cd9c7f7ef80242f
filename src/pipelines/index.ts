export {
  type DenoisingInputs,
  type StableDiffusionComponents,
  StableDiffusionPipeline,
  type StableDiffusionPipelineOutput,
  type Timings,
} from './pipeline_stable_diffusion.js';
export type { FromPretrainedOptions, LoadProgress } from './stable_diffusion_components.js';
export type {
  DenoisingProgress,
  DenoisingStep,
  OutputType,
  StableDiffusionOptions,
  StepChanges,
  StepDecision,
} from './stable_diffusion_options.js';
