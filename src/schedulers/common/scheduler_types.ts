import type * as tf from '@tensorflow/tfjs-core';
import type { TorchGenerator } from '../../utils/torch_generator.js';

/** What a step gives. The caller owns the tensors and disposes them. */
export interface SchedulerOutput {
  /** The sample at the next, less noisy timestep. */
  prevSample: tf.Tensor;
  /** The clean sample that the model's output stands for, where the scheduler computes one. */
  predOriginalSample?: tf.Tensor;
  /** LCM: the clean sample that its consistency function gives. */
  denoised?: tf.Tensor;
  /** TCD: the sample at the timestep that the noise is added from. */
  predNoisedSample?: tf.Tensor;
}

/** Options of `step`; each scheduler takes those that its own documentation names and ignores the others. */
export interface StepOptions {
  /** Where noise comes from: one generator, or one per batch item. Without it, from a randomly seeded one. */
  generator?: TorchGenerator | readonly TorchGenerator[];
  /** DDIM: 0 is deterministic, 1 is DDPM's noise. TCD: strength of the noise, gamma in its paper. */
  eta?: number;
  /** DDIM: derive the noise again from the clipped clean sample, as GLIDE does. */
  useClippedModelOutput?: boolean;
  /** DDIM and DPMSolverMultistep: the noise itself, of the sample's shape, instead of a generator. */
  varianceNoise?: tf.Tensor;
  /** Euler: noise added back before a step, for noise levels within [sTmin, sTmax] (Karras et al., Algorithm 2). */
  sChurn?: number;
  sTmin?: number;
  sTmax?: number;
  sNoise?: number;
  /** LMS: number of past derivatives used. */
  order?: number;
}

/** Options of `setTimesteps`; asking a scheduler for one that it does not take is an error. */
export interface SetTimestepsOptions {
  /** Descending training steps to use instead of a number of steps. */
  timesteps?: readonly number[];
  /** Descending noise levels to use instead of a number of steps. */
  sigmas?: readonly number[];
  /** Shift of the flow schedules for the picture's size, with `use_dynamic_shifting`. */
  mu?: number;
  /** LCM and TCD: steps of the schedule that the model was distilled with. */
  originalInferenceSteps?: number;
  /** LCM and TCD: share of the schedule that is used, for image to image. */
  strength?: number;
}
