import type { DrawRequest } from '../request/draw_request.js';

/** Fields of a request that are options of a pipeline's call, under their names there. */
export const CALL_OPTIONS: { readonly [K in keyof DrawRequest]?: string } = {
  negative_prompt: 'negativePrompt',
  width: 'width',
  height: 'height',
  steps: 'numInferenceSteps',
  guidance_scale: 'guidanceScale',
  guidance_rescale: 'guidanceRescale',
  strength: 'strength',
  image: 'image',
  mask: 'maskImage',
  clip_skip: 'clipSkip',
  eta: 'eta',
  prompt_syntax: 'promptSyntax',
  negative_guidance_min_sigma: 'negativeGuidanceMinSigma',
  skip_early_cond: 'skipEarlyCond',
};
