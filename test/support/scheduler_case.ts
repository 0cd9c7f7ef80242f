import { readdirSync } from 'node:fs';
import * as tf from '@tensorflow/tfjs-core';
import {
  SASolverScheduler,
  type SchedulerMixin,
  type SetTimestepsOptions,
  type StepOptions,
} from '../../src/schedulers/index.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { loadSafetensors } from './safetensors.js';

const f = Math.fround;
/** Shape of the samples of the reference cases, in torch's order. */
const SHAPE: [number, number, number, number] = [1, 4, 8, 8];
const SIZE = 256;

/** A reference run of one of diffusers' schedulers. */
export interface SchedulerCase {
  name: string;
  scheduler: string;
  config: Record<string, unknown>;
  /** Arguments of setTimesteps. */
  steps: number | undefined;
  setTimesteps: SetTimestepsOptions;
  generatorSeed: number;
  stepOptions: StepOptions;
  /** SASolver's stochasticity, the same at all timesteps. */
  tau: number | undefined;
  timesteps: Float32Array;
  sigmas: Float32Array | undefined;
  /** Samples before every step and after the last one, each [1, 4, 8, 8]. */
  samples: Float32Array[];
}

/** All cases of a folder, by file name. */
export function loadCases(folder: string): SchedulerCase[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.safetensors'))
    .sort()
    .map((file) => {
      const { tensors, metadata } = loadSafetensors(`${folder}/${file}`);
      const x = tensors.x!.data as Float32Array;
      const custom = camelCased(
        JSON.parse(metadata.set_timesteps ?? 'null') ?? { numInferenceSteps: Number(metadata.steps) },
      );
      const { tau, ...stepOptions } = JSON.parse(metadata.step_kwargs!);
      const { numInferenceSteps: steps, ...setTimesteps } = custom as { numInferenceSteps?: number };
      return {
        name: file.replace('.safetensors', ''),
        scheduler: metadata.scheduler!,
        config: JSON.parse(metadata.config!),
        steps,
        setTimesteps,
        generatorSeed: Number(metadata.generator_seed),
        stepOptions: camelCased(stepOptions),
        tau,
        timesteps: tensors.timesteps!.data as Float32Array,
        sigmas: tensors.sigmas?.data as Float32Array | undefined,
        samples: Array.from({ length: x.length / SIZE }, (_, i) => x.slice(i * SIZE, (i + 1) * SIZE)),
      };
    });
}

/** The loop of the reference: samples before every step and after the last one, in torch's order. */
export function runCase(scheduler: SchedulerMixin, reference: SchedulerCase): Float32Array[] {
  if (scheduler instanceof SASolverScheduler && reference.tau !== undefined) {
    scheduler.tauFunction = () => reference.tau!;
  }
  const generator = new TorchGenerator(reference.generatorSeed);
  const samples = [reference.samples[0]!];
  let sample: tf.Tensor = toTensor(reference.samples[0]!);
  for (const timestep of scheduler.timesteps) {
    const next = tf.tidy(() => {
      const output = fakeDenoiser(scheduler.scaleModelInput(sample, timestep), timestep);
      return scheduler.step(output, timestep, sample, { ...reference.stepOptions, generator }).prevSample;
    });
    sample.dispose();
    sample = next;
    samples.push(tf.tidy(() => tf.transpose(sample, [0, 3, 1, 2]).dataSync() as Float32Array));
  }
  sample.dispose();
  return samples;
}

/** 0.3 x + 0.1 sin(7 x + t / 100), in float32 like the reference. */
export function fakeDenoiser(x: tf.Tensor, timestep: number): tf.Tensor {
  const shift = f(timestep / 100);
  const values = (x.dataSync() as Float32Array).map(
    (v) => f(f(0.3) * v) + f(f(0.1) * f(Math.sin(f(f(7 * v) + shift)))),
  );
  return tf.tensor(values, x.shape);
}

export function toTensor(data: Float32Array): tf.Tensor4D {
  return tf.tidy(() => tf.transpose(tf.tensor4d(data, SHAPE), [0, 2, 3, 1]));
}

export function camelCased(options: Record<string, unknown>): Record<string, unknown> {
  const name = (key: string): string => key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(options).map(([key, value]) => [name(key), value]));
}
