import { a1111Parameters, PARAMETERS_KEY } from '../../images/index.js';
import type { SchedulerMixin } from '../../schedulers/index.js';

/** What is worth knowing about a batch of pictures afterwards. */
export interface GenerationRecord {
  /** Empty when embeddings were given instead. */
  prompts: readonly string[];
  options: {
    negativePrompt?: string | readonly string[];
    guidanceRescale?: number;
    eta?: number;
    clipSkip?: number;
    /** Image to image: share of the steps. */
    strength?: number;
    numImagesPerPrompt?: number;
  };
  guidanceScale: number;
  scheduler: SchedulerMixin;
  /** Steps that were asked for; those that were taken when the call was stopped. */
  steps: number;
  /** One for the batch or one for each picture. */
  seeds: bigint[];
  modelName: string | undefined;
}

/** The web UI's names of the samplers; a scheduler that it does not have keeps its own. */
const SAMPLER_NAMES: Record<string, string> = {
  DDIMScheduler: 'DDIM',
  PNDMScheduler: 'PLMS',
  EulerDiscreteScheduler: 'Euler',
  EulerAncestralDiscreteScheduler: 'Euler a',
  DPMSolverMultistepScheduler: 'DPM++ 2M',
  DPMSolverSinglestepScheduler: 'DPM++ 2S',
  LMSDiscreteScheduler: 'LMS',
  HeunDiscreteScheduler: 'Heun',
  KDPM2DiscreteScheduler: 'DPM2',
  KDPM2AncestralDiscreteScheduler: 'DPM2 a',
  UniPCMultistepScheduler: 'UniPC',
  LCMScheduler: 'LCM',
};

/** Text metadata of picture number `index` of a batch: prompt and settings in the form of A1111's web UI. */
export function imageMetadata(
  record: GenerationRecord,
  index: number,
  batch: number,
  { width, height }: { width: number; height: number },
): Record<string, string> {
  const { prompts, options, guidanceScale, scheduler, seeds } = record;
  const prompt = Math.floor(index / (options.numImagesPerPrompt ?? 1));
  const { negativePrompt, guidanceRescale, eta, clipSkip } = options;
  const karras = scheduler.config.use_karras_sigmas === true;
  const text = a1111Parameters({
    prompt: prompts[prompt] ?? '',
    negativePrompt: typeof negativePrompt === 'string' ? negativePrompt : negativePrompt?.[prompt],
    steps: record.steps,
    sampler: SAMPLER_NAMES[scheduler.className] ?? scheduler.className,
    guidanceScale,
    seed: seeds.length > 1 ? seeds[index] : seeds[0],
    width,
    height,
    model: record.modelName,
    // the web UI counts from 1, where diffusers' 0 or none means the last layer
    clipSkip: clipSkip === undefined ? undefined : clipSkip + 1,
    extra: {
      'Denoising strength': options.strength,
      'Schedule type': karras ? 'Karras' : undefined,
      'CFG rescale': guidanceRescale || undefined,
      Eta: eta || undefined,
      'Batch size': batch > 1 && seeds.length === 1 ? batch : undefined,
      'Batch pos': batch > 1 && seeds.length === 1 ? index : undefined,
      Version: 'tfjs-diffusers',
    },
  });
  return { [PARAMETERS_KEY]: text };
}
