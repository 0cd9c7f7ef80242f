import '@tensorflow/tfjs-backend-cpu';
import { beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { findScheduler } from '../../src/schedulers/index.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { relativeL2 } from '../support/compare.js';
import { loadCases, runCase } from '../support/scheduler_case.js';

beforeAll(async () => {
  tf.env().set('IS_TEST', true);
  await tf.setBackend('cpu');
});

const cases = loadCases('test/fixtures/schedulers');

describe.each(cases)('$name ($scheduler)', (reference) => {
  const make = () => {
    const scheduler = findScheduler(reference.scheduler).scheduler.fromConfig(reference.config);
    scheduler.setTimesteps(reference.steps, reference.setTimesteps);
    return scheduler;
  };

  test('lays out the schedule of diffusers', () => {
    const scheduler = make();
    expect(scheduler.timesteps.length).toBe(reference.timesteps.length);
    expect(relativeL2(scheduler.timesteps, reference.timesteps)).toBeLessThan(1e-6);
    if (reference.sigmas) {
      const { sigmas } = scheduler as unknown as { sigmas: Float32Array };
      expect(sigmas.length).toBe(reference.sigmas.length);
      expect(relativeL2(sigmas, reference.sigmas)).toBeLessThan(1e-6);
    }
    const first = new TorchGenerator(0).randn([1, 4, 8, 8]).map((x) => x * scheduler.initNoiseSigma);
    expect(relativeL2(first, reference.samples[0]!)).toBeLessThan(1e-6);
  });

  test('takes the steps of diffusers and leaves no tensors', () => {
    const before = tf.memory().numTensors;
    const samples = runCase(make(), reference);
    expect(samples.length).toBe(reference.samples.length);
    for (const [i, expected] of reference.samples.entries()) {
      expect(relativeL2(samples[i]!, expected)).toBeLessThan(1e-5);
    }
    expect(tf.memory().numTensors).toBe(before);
  });
});
