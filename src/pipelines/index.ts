export type { FromPretrainedOptions, LoadProgress } from './common/components.js';
export type {
  DenoisingProgress,
  DenoisingStep,
  OutputType,
  StableDiffusionOptions,
  StepChanges,
  StepDecision,
} from './common/options.js';
export {
  type DenoisingInputs,
  type StableDiffusionComponents,
  StableDiffusionPipeline,
  type StableDiffusionPipelineOutput,
  type Timings,
} from './stable_diffusion/pipeline_stable_diffusion.js';
