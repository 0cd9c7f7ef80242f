import { previewer } from '../../pipelines/common/preview.js';
import type { DenoisingStep } from '../../pipelines/index.js';
import type { DrawRequest } from '../request/draw_request.js';
import type { DrawingPipeline } from './loaded_model.js';
import type { Preview } from './messages.js';

const QUALITY = 80;
/** Channels of latents whose colours are known. */
const COLOURED = 4;

/**
 * After which steps (1, 2, ...) pictures on the way are made: evenly spaced, never after the last step.
 *
 * @param count how many are wanted
 */
export function previewSteps(count: number, total: number): number[] {
  const parts = Math.min(count, total) + 1;
  const steps = Array.from({ length: parts - 1 }, (_, i) => Math.floor((total * (i + 1)) / parts));
  return [...new Set(steps)].filter((step) => step >= 1 && step < total);
}

/** What the picture looks like after a step. */
export async function previewOf(
  pipe: DrawingPipeline,
  step: DenoisingStep,
  { preview_format: format = 'jpeg', preview_method: method = 'linear' }: DrawRequest,
): Promise<Pick<Preview, 'format' | 'bytes'>> {
  const isLinear = method === 'linear' && pipe.vae.parsed.latentChannels === COLOURED;
  const draw = previewer(pipe, isLinear ? 'linear' : { vae: pipe.vae })!;
  const [image] = (await draw(step))!;
  return { format, bytes: await image!.toBuffer(format, { quality: QUALITY }) };
}
