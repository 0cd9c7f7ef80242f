import type { Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { yieldToEventLoop } from '#platform';
import { synchronize } from '../../backends/traits.js';
import type { GeneratedImage } from '../../images/index.js';
import type { SchedulerMixin } from '../../schedulers/index.js';
import { checkAborted } from '../../utils/check.js';
import type { TorchGenerator } from '../../utils/torch_generator.js';
import { checkLatents } from './latents.js';
import type { DenoisingStep, LoopOptions, StepChanges, StepDecision } from './options.js';
import { noiseLevel } from './schedule.js';

/** Where a loop stands. */
export interface LoopStep {
  /** 0 for the first step that is taken. */
  step: number;
  /** Steps that are taken in all. */
  total: number;
  timestep: number;
  /** Timestep of the step that follows; undefined at the last one. */
  nextTimestep: number | undefined;
  /** Noise level, relative to the sample. */
  sigma: number;
}

/** Draws the pictures of a step as they look now; undefined after a step without. */
export type Previewer<T extends Tensor = Tensor> = (step: DenoisingStep<T>) => Promise<GeneratedImage[] | undefined>;

/** What predicts the noise (or velocity, or sample) in latents: a model with its conditions. */
export interface Denoiser<T extends Tensor = Tensor> {
  /**
   * @param latents as `scheduler.scaleModelInput` gives them; they stay the loop's
   * @returns a tensor of the latents' shape, which the loop takes over
   */
  predict(latents: T, timestep: number, step: LoopStep): T | Promise<T>;
  /** Takes the changes over that a callback asks for, except latents. */
  change?(changes: StepChanges<T>): void;
}

export interface DenoisingLoop<T extends Tensor> {
  /** After `setTimesteps`. */
  scheduler: SchedulerMixin;
  denoiser: Denoiser<T>;
  /** [B, ...] at the noise level of the first step; taken over and disposed of by the loop. */
  latents: T;
  /** Index into `scheduler.timesteps` of the first step (image to image), and of the one after the last. */
  begin?: number;
  end?: number;
  /** What becomes of the latents after a step (inpainting). Runs in a tf.tidy. */
  mix?: (latents: T, step: LoopStep) => T;
  generator: TorchGenerator | readonly TorchGenerator[];
  /** Noise of DDIM's steps, 0 to 1. Default 0. */
  eta?: number;
  signal?: AbortSignal;
  /** For error messages. */
  where?: string;
}

/**
 * The denoising loop, one step at a time. Gives the state after every step; `next()` takes a StepDecision, which may
 * replace the latents or end the loop. Returns the final latents, which the caller owns.
 *
 * @throws AbortedError through the signal, InvalidArgumentError for decisions that cannot be used
 */
export async function* denoisingLoop<T extends Tensor>(
  inputs: DenoisingLoop<T>,
): AsyncGenerator<DenoisingStep<T>, T, StepDecision<T>> {
  const { scheduler, denoiser, signal, where = 'denoisingLoop' } = inputs;
  let latents: T | null = inputs.latents;
  let predOriginalSample: T | undefined;
  try {
    for (const loopStep of loopSteps(inputs)) {
      checkAborted(signal, 'drawing');
      const current: T = latents;
      const taken: Taken<T> = await takeStep(inputs, current, loopStep);
      ({ latents, predOriginalSample } = taken);
      current.dispose();
      await synchronize();
      await yieldToEventLoop();
      const { step, total, timestep } = loopStep;
      const { shape } = latents;
      const decision: StepDecision<T> = yield { step, total, timestep, latents, predOriginalSample };
      tf.dispose(predOriginalSample ?? []);
      if (decision?.latents && decision.latents !== latents) {
        latents.dispose();
        latents = decision.latents;
      }
      if (decision) {
        denoiser.change?.(decision);
      }
      checkLatents(where, latents, shape);
      if (decision?.stop) {
        break;
      }
    }
    const result: T = latents;
    latents = null;
    return result;
  } finally {
    tf.dispose([latents ?? [], predOriginalSample ?? []]);
    scheduler.dispose();
  }
}

function* loopSteps<T extends Tensor>({ scheduler, begin = 0, end }: DenoisingLoop<T>): Generator<LoopStep> {
  const timesteps = scheduler.timesteps.slice(begin, end);
  for (const [step, timestep] of timesteps.entries()) {
    const sigma = noiseLevel(scheduler, begin + step);
    yield { step, total: timesteps.length, timestep, nextTimestep: timesteps[step + 1], sigma };
  }
}

/** What a step gives. */
type Taken<T extends Tensor> = { latents: T; predOriginalSample: T | undefined };

/** The latents after a step. */
async function takeStep<T extends Tensor>(inputs: DenoisingLoop<T>, latents: T, step: LoopStep): Promise<Taken<T>> {
  const { scheduler, denoiser, generator, eta = 0, mix = (x: T) => x } = inputs;
  const { timestep } = step;
  const input = tf.tidy(() => scheduler.scaleModelInput(latents, timestep) as T);
  let prediction: T | undefined;
  try {
    prediction = await denoiser.predict(input, timestep, step);
    const output = prediction;
    return tf.tidy<Taken<T>>(() => {
      const { prevSample, predOriginalSample } = scheduler.step(output, timestep, latents, { generator, eta });
      return { latents: mix(prevSample as T, step), predOriginalSample: predOriginalSample as T | undefined };
    });
  } finally {
    tf.dispose([input, prediction ?? []]);
  }
}

/**
 * Runs a loop to its end, with the callback and the progress that the options ask for.
 *
 * @param options.drawPreview draws pictures in the making, see `previewer`
 * @param steps gets the seconds of each step
 * @returns the final latents, which the caller owns
 */
export async function runLoop<T extends Tensor>(
  loop: AsyncGenerator<DenoisingStep<T>, T, StepDecision<T>>,
  { callbackOnStepEnd, onProgress, drawPreview }: Omit<LoopOptions<T>, 'preview'> & { drawPreview?: Previewer<T> } = {},
  steps: number[] = [],
): Promise<T> {
  let decision: StepDecision<T>;
  try {
    for (;;) {
      const begin = performance.now();
      const { done, value } = await loop.next(decision);
      if (done) {
        return value;
      }
      const seconds = (performance.now() - begin) / 1000;
      steps.push(seconds);
      const preview = await drawPreview?.(value);
      const shown = preview && { preview };
      onProgress?.({ stage: 'denoise', step: value.step + 1, total: value.total, seconds, ...shown });
      decision = await callbackOnStepEnd?.({ ...value, ...shown });
    }
  } finally {
    await loop.return(undefined as never);
  }
}
