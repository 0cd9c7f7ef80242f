import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { skipsUnconditional } from '../../src/pipelines/common/guidance.js';
import { noiseLevel } from '../../src/pipelines/common/schedule.js';
import { type StableDiffusionOptions, StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { createScheduler } from '../../src/schedulers/index.js';
import { relativeL2 } from '../support/compare.js';

describe('skipsUnconditional', () => {
  const steps = (options: Parameters<typeof skipsUnconditional>[0], sigmas: number[]) =>
    sigmas.map((sigma, step) => skipsUnconditional(options, { step, total: sigmas.length, sigma }));
  const sigmas = [10, 8, 6, 4, 2, 1];

  test('leaves out every other step below the level', () => {
    expect(steps({ negativeGuidanceMinSigma: 5 }, sigmas)).toEqual([false, false, false, true, false, true]);
    expect(steps({ negativeGuidanceMinSigma: 0 }, sigmas)).toEqual(new Array(6).fill(false));
  });

  test("'all' leaves out all of them, skipEarlyCond the first ones", () => {
    const all = { negativeGuidanceMinSigma: 5, negativeGuidanceSteps: 'all' } as const;
    expect(steps(all, sigmas)).toEqual([false, false, false, true, true, true]);
    expect(steps({ skipEarlyCond: 0.34 }, sigmas)).toEqual([true, true, true, false, false, false]);
    expect(steps({ skipEarlyCond: 0.5 }, sigmas)).toEqual([true, true, true, true, false, false]);
  });
});

test('the noise level of schedulers without sigmas comes from their alphas', () => {
  const config = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear' };
  const [ddim, euler] = ['DDIMScheduler', 'EulerDiscreteScheduler'].map((name) =>
    createScheduler(name, { ...config, timestep_spacing: 'leading' }),
  );
  for (const scheduler of [ddim!, euler!]) {
    scheduler.setTimesteps(10);
  }
  for (const step of [0, 4, 9]) {
    expect(noiseLevel(ddim!, step) / noiseLevel(euler!, step)).toBeCloseTo(1, 5);
  }
});

describe('pictures with a part of the negative guidance', () => {
  let pipe: StableDiffusionPipeline;

  beforeAll(async () => {
    pipe = await StableDiffusionPipeline.fromPretrained('weights/tiny-shapes', { backend: 'wasm' });
  });

  afterAll(() => pipe.dispose());

  async function latents(options: StableDiffusionOptions): Promise<Float32Array> {
    const before = tf.memory().numTensors;
    const prompt = 'a green (ring:1.0) on a black background';
    const { images } = await pipe(prompt, { numInferenceSteps: 4, seed: 1, ...options, outputType: 'latent' });
    const data = images.dataSync() as Float32Array;
    images.dispose();
    expect(tf.memory().numTensors).toBe(before);
    return data;
  }

  test('level 0 changes nothing, to the bit', async () => {
    expect(await latents({ negativeGuidanceMinSigma: 0, skipEarlyCond: 0 })).toEqual(await latents({}));
  });

  test('left out on every step, it is the conditional prediction alone', async () => {
    const conditional = await latents({ guidanceScale: 1 });
    const skipped = await latents({ negativeGuidanceMinSigma: 100, negativeGuidanceSteps: 'all' });
    expect(relativeL2(skipped, conditional)).toBeLessThan(1e-5);
    const alternate = await latents({ negativeGuidanceMinSigma: 100 });
    expect(relativeL2(alternate, conditional)).toBeGreaterThan(1e-2);
    expect(relativeL2(alternate, await latents({}))).toBeGreaterThan(1e-3);
  });

  test('the level is compared with the noise of each step', async () => {
    await latents({});
    const sigmas = pipe.scheduler.timesteps.map((_, step) => noiseLevel(pipe.scheduler, step));
    const level = (sigmas[1]! + sigmas[2]!) / 2;
    const below = await latents({ negativeGuidanceMinSigma: level, negativeGuidanceSteps: 'all' });
    const unguidedFromThere = await latents({
      callbackOnStepEnd: ({ step }) => (step === 1 ? { guidanceScale: 1 } : {}),
    });
    expect(relativeL2(below, unguidedFromThere)).toBeLessThan(1e-5);
    expect(relativeL2(below, await latents({}))).toBeGreaterThan(1e-3);
  });

  test("the web UI's syntax: no emphasis is the plain prompt, long prompts go on, weights matter", async () => {
    const plain = 'a green ring on a black background';
    const draw = async (prompt: string, promptSyntax: 'diffusers' | 'a1111') => {
      const { images } = await pipe(prompt, { numInferenceSteps: 2, seed: 1, promptSyntax, outputType: 'latent' });
      const data = images.dataSync() as Float32Array;
      images.dispose();
      return data;
    };
    const expected = await draw(plain, 'diffusers');
    expect(relativeL2(await draw('a green (ring:1.0) on a black background', 'a1111'), expected)).toBeLessThan(1e-5);
    expect(relativeL2(await draw('a green (ring:1.6) on a black background', 'a1111'), expected)).toBeGreaterThan(1e-3);
    const long = await draw(`${plain}, ${'small red circle '.repeat(40)}`, 'a1111');
    expect(long.every(Number.isFinite)).toBe(true);
    expect(relativeL2(long, expected)).toBeGreaterThan(1e-3);
  });
});
