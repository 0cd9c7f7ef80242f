import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, integer, number, type OptionsOf, oneOrList, optional } from '../config/fields.js';
import { invalid } from '../utils/check.js';
import { fromTorchOrder } from '../utils/randn_tensor.js';
import { BrownianTree } from './common/brownian_tree.js';
import { NOISE_SCHEDULE_FIELDS, SIGMA_CONVERSION_FIELDS, spacingFields } from './common/config.js';
import { f32 } from './common/numeric.js';
import { ancestralStep, midpoint, type SigmaConversion, twice } from './common/schedule.js';
import {
  combine,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';
import { SigmaScheduler } from './common/sigma_scheduler.js';

const seed = integer(0, { min: 0 });
const FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...SIGMA_CONVERSION_FIELDS,
  ...spacingFields('linspace'),
  beta_start: number(0.00085),
  beta_end: number(0.012),
  noise_sampler_seed: optional(oneOrList(seed, 1024)),
};

/**
 * DPM-Solver++ on the SDE, two model calls per step, with the noise of a Brownian tree (k-diffusion's
 * `sample_dpmpp_sde`; diffusers/schedulers/scheduling_dpmsolver_sde.py). `step` takes `sNoise` and `generator`.
 *
 * The tree's seed is `noise_sampler_seed`, one for the batch or a list with one for each item; without it, the generators
 * give one each. (diffusers then takes one that nobody knows.) The tree's times are noise levels rounded to 1e-6, and
 * float32 logarithms differ by more than that from one build of PyTorch to another, so noise that is drawn there may
 * differ in the third digit.
 */
export class DPMSolverSDEScheduler extends SigmaScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'DPMSolverSDEScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { dpmpp_sde: {}, dpmpp_sde_karras: { use_karras_sigmas: true } };
  override readonly order = 2;

  private trees: BrownianTree[] | null = null;
  /** Sample at the start of the step under way, between its two model calls. */
  private startSample: tf.Tensor | null = null;

  constructor(options?: OptionsOf<ConfigOf<typeof FIELDS>>) {
    super(options);
    this.buildSchedule(this.length);
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'v_prediction']);
    const steps = this.checkSteps(numInferenceSteps, options);
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.buildSchedule(steps);
  }

  private buildSchedule(steps: number): void {
    const { sigmas, timesteps } = this.spacedSigmas(steps);
    const midpoints = sigmas.slice(0, -1).map((sigma, i) => midpoint(sigma, sigmas[i + 1]!));
    const middle = this.timestepsOf(midpoints);
    this.sigmas = Float32Array.from([...twice(sigmas), 0]);
    this.timesteps = timesteps.flatMap((t, i) => (i === 0 ? [t] : [middle[i - 1]!, t])).map(f32);
  }

  /** The karras sigmas of this class take their ends from the schedule alone. */
  protected override get conversion(): SigmaConversion {
    const { use_karras_sigmas } = this.config;
    return use_karras_sigmas ? { use_karras_sigmas } : super.conversion;
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const output = tf.tidy(() => {
      const sigmaNow = this.inputSigma(index);
      const predOriginalSample = this.predictOriginal(modelOutput, sample, sigmaNow);
      const [sigma, next] = this.ends(index);
      const start = this.startSample;
      if (next === 0) {
        return { prevSample: tf.clone(predOriginalSample), predOriginalSample };
      }
      const { up, down } = ancestralStep(sigma, start ? next : midpoint(sigma, next));
      const noise = this.brownianNoise(sample, sigma, next, options);
      // down / sigma x + (1 - down / sigma) x_0 + s_noise up noise: to the middle first, then all the way
      const prevSample = combine(
        [down / sigma, start ?? sample],
        [1 - down / sigma, predOriginalSample],
        [(options.sNoise ?? 1) * up, noise],
      );
      this.startSample = start ? null : this.retain(sample);
      this.release(start);
      return { prevSample, predOriginalSample };
    });
    this.endStep();
    return output;
  }

  /** Noise levels at both ends of the step that an index is in. */
  private ends(index: number): [sigma: number, next: number] {
    const first = this.startSample ? index - 1 : index;
    return [this.sigmas[first]!, this.sigmas[first + 1]!];
  }

  protected override inputSigma(index: number): number {
    const [sigma, next] = this.ends(index);
    return this.startSample ? midpoint(sigma, next) : sigma;
  }

  protected override resetLoop(): void {
    super.resetLoop();
    this.trees = null;
  }

  override dispose(): void {
    super.dispose();
    this.startSample = null;
  }

  /** Standard normal noise of the tree, (W(s) - W(t)) / sqrt(s - t), for the step under way or its first half. */
  private brownianNoise(sample: tf.Tensor, sigma: number, next: number, options: StepOptions): tf.Tensor {
    this.trees ??= this.plantTrees(sample, options);
    const [from, end] = [f32(-Math.log(sigma)), f32(-Math.log(next))];
    const to = this.startSample ? end : f32(from + 0.5 * (end - from));
    const [s, t] = [f32(Math.exp(-from)), f32(Math.exp(-to))];
    const increments = this.trees.map((tree) => tree.increment(t, s));
    const scale = -1 / Math.sqrt(s - t);
    const noise = increments.flatMap((increment) => Array.from(increment, (w) => w * scale));
    return fromTorchOrder(Float32Array.from(noise), sample.shape);
  }

  private plantTrees(sample: tf.Tensor, options: StepOptions): BrownianTree[] {
    const seeds = this.seeds(options);
    const batch = sample.shape[0] ?? 1;
    if (seeds.length !== 1 && seeds.length !== batch) {
      throw invalid(this.className, 'noise_sampler_seed', `one seed, or one per batch item (${batch})`, seeds.length);
    }
    const levels = [...this.sigmas].filter((sigma) => sigma > 0);
    const [low, high] = [Math.min(...levels), Math.max(...levels)];
    return seeds.map((given) => new BrownianTree(low, high, sample.size / seeds.length, BigInt(given)));
  }

  private seeds(options: StepOptions): readonly number[] {
    const given = this.config.noise_sampler_seed;
    if (given !== null) {
      return typeof given === 'number' ? [given] : given;
    }
    return this.generators(options).map((each) => each.randint(0, 2 ** 31 - 1, 1)[0]!);
  }
}
