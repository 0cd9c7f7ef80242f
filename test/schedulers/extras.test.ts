import '@tensorflow/tfjs-backend-cpu';
import { afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { thresholdSample } from '../../src/schedulers/common/thresholding.js';
import {
  createScheduler,
  DDIMScheduler,
  DDPMScheduler,
  DPMSolverMultistepScheduler,
  EulerDiscreteScheduler,
  FlowMatchEulerDiscreteScheduler,
  findScheduler,
  type SchedulerMixin,
} from '../../src/schedulers/index.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { relativeL2, toNHWC } from '../support/compare.js';
import { loadSafetensors } from '../support/safetensors.js';
import { fakeDenoiser } from '../support/scheduler_case.js';

const { tensors } = loadSafetensors('test/fixtures/scheduler_extras.safetensors');
const SD = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear' };
/** DEIS has no final level of zero; with one, DPM-Solver's last step is of first order whatever the number. */
const FINAL_LEVEL: Record<string, object> = { deis: {}, dpmpp_2m: { finalSigmasType: 'sigma_min' } };
const SHAPE = [2, 4, 8, 8];
const loops = names('img2img');
const noises = names('add_noise');

let before = 0;
beforeAll(async () => {
  tf.env().set('IS_TEST', true);
  await tf.setBackend('cpu');
});
beforeEach(() => {
  before = tf.memory().numTensors;
});
afterEach(() => {
  expect(tf.memory().numTensors).toBe(before);
});

function names(group: string): string[] {
  return Object.keys(tensors)
    .filter((name) => name.startsWith(`${group}/`))
    .map((name) => name.split('/')[1]!);
}

function randn(seed: number, shape = SHAPE): tf.Tensor {
  const [n, c, h, w] = shape as [number, number, number, number];
  return tf.tensor(toNHWC(new TorchGenerator(seed).randn(shape), shape), [n, h, w, c]);
}

function expectEqual(actual: tf.Tensor, name: string, item?: number): void {
  const { data, shape } = tensors[name]!;
  const torchShape = shape.slice(-4);
  const size = torchShape.reduce((a, b) => a * b, 1);
  const expected = item === undefined ? data : data.slice(item * size, (item + 1) * size);
  expect(relativeL2(actual.dataSync(), toNHWC(expected as Float32Array, torchShape))).toBeLessThan(1e-5);
}

describe.each(loops)('%s', (className) => {
  test('starts in the middle of its schedule, with a generator for each batch item', () => {
    const scheduler = findScheduler(className).scheduler.fromConfig(SD);
    scheduler.setTimesteps(6);
    const begin = 3 * scheduler.order;
    scheduler.setBeginIndex(begin);
    const timesteps = scheduler.timesteps.slice(begin);
    const generator = [new TorchGenerator(7), new TorchGenerator(8)];
    let x = tf.tidy(() => scheduler.addNoise(randn(5), randn(6), [timesteps[0]!, timesteps[0]!]));
    expectEqual(x, `img2img/${className}`, 0);
    for (const [i, t] of timesteps.entries()) {
      const next = tf.tidy(() => {
        const output = fakeDenoiser(scheduler.scaleModelInput(x, t), t);
        return scheduler.step(output, t, x, { generator, eta: 0.6 }).prevSample;
      });
      x.dispose();
      x = next;
      expectEqual(x, `img2img/${className}`, i + 1);
    }
    x.dispose();
  });
});

test('a timestep that occurs twice stands for its second place, unless the loop has a begin index', () => {
  const scheduler = createScheduler('heun', SD);
  const indexAfterStepAt = (timestep: number) => {
    tf.tidy(() => {
      scheduler.step(randn(3), timestep, randn(1));
    });
    scheduler.dispose();
    return scheduler.stepIndex;
  };
  scheduler.setTimesteps(6);
  expect(scheduler.timesteps[5]).toBe(scheduler.timesteps[6]);
  expect(indexAfterStepAt(scheduler.timesteps[5]!)).toBe(7);
  scheduler.setTimesteps(6);
  scheduler.setBeginIndex(5);
  expect(indexAfterStepAt(scheduler.timesteps[5]!)).toBe(6);
});

describe.each(noises)('%s', (className) => {
  const make = (): SchedulerMixin => {
    const scheduler = findScheduler(className).scheduler.fromConfig(/^(Flow|EDM)/.test(className) ? {} : SD);
    scheduler.setTimesteps(10);
    return scheduler;
  };

  test('adds noise to a batch, at a timestep each or one for all', () => {
    const scheduler = make();
    const timesteps = [scheduler.timesteps[2]!, scheduler.timesteps[7]!];
    tf.tidy(() => {
      expectEqual(scheduler.addNoise(randn(1), randn(2), timesteps), `add_noise/${className}`);
      expectEqual(scheduler.addNoise(randn(1), randn(2), new Float32Array(timesteps)), `add_noise/${className}`);
      expectEqual(scheduler.addNoise(randn(1), randn(2), timesteps[1]!), `add_noise_one/${className}`);
    });
  });

  test('gives the velocity where diffusers does', () => {
    const scheduler = make() as DDIMScheduler;
    const timesteps = [scheduler.timesteps[2]!, scheduler.timesteps[7]!];
    if (names('get_velocity').includes(className)) {
      tf.tidy(() => expectEqual(scheduler.getVelocity(randn(1), randn(2), timesteps), `get_velocity/${className}`));
    }
  });
});

test('noise can be added to some of the pictures of a loop under way (inpainting)', () => {
  const scheduler = new EulerDiscreteScheduler();
  scheduler.setTimesteps(4);
  scheduler.setBeginIndex(0);
  tf.tidy(() => {
    const [x, noise] = [randn(1), randn(2)];
    scheduler.step(x, scheduler.timesteps[0]!, x);
    const expected = tf.add(x, tf.mul(noise, scheduler.sigmas[1]!));
    const noisy = scheduler.addNoise(x, noise, scheduler.timesteps[0]!);
    expect(noisy.dataSync()).toEqual(expected.dataSync());
  });
});

test.each(['learned', 'learned_range'] as const)('DDPM takes a %s variance from the model', (variance_type) => {
  const scheduler = new DDPMScheduler({ variance_type });
  scheduler.setTimesteps(3);
  tf.tidy(() => {
    const output = tf.concat([randn(3), tf.abs(randn(4))], -1);
    const options = { generator: new TorchGenerator(9) };
    expectEqual(
      scheduler.step(output, scheduler.timesteps[1]!, randn(1), options).prevSample,
      `learned/${variance_type}`,
    );
  });
});

test('DPMSolverMultistep leaves out the channels of a learned variance', () => {
  const scheduler = new DPMSolverMultistepScheduler({
    varianceType: 'learned_range',
    algorithmType: 'sde-dpmsolver++',
  });
  scheduler.setTimesteps(3);
  const shape = [2, 3, 8, 8];
  tf.tidy(() => {
    const output = tf.concat([randn(3, shape), randn(4, shape)], -1);
    const options = { varianceNoise: randn(2, shape) };
    expectEqual(scheduler.step(output, scheduler.timesteps[0]!, randn(1, shape), options).prevSample, 'learned/dpm');
  });
  scheduler.dispose();
});

test('DDIM takes the noise itself and gives the clean sample', () => {
  const scheduler = new DDIMScheduler(SD);
  scheduler.setTimesteps(3);
  tf.tidy(() => {
    const options = { eta: 1, varianceNoise: randn(2) };
    const output = scheduler.step(randn(3), scheduler.timesteps[1]!, randn(1), options);
    expectEqual(output.prevSample, 'ddim/prev_sample');
    expectEqual(output.predOriginalSample!, 'ddim/pred_original_sample');
  });
});

test('DDPM takes all training steps without setTimesteps', () => {
  const scheduler = new DDPMScheduler({ numTrainTimesteps: 6, clipSample: false });
  const generator = new TorchGenerator(9);
  const last = tf.tidy(() =>
    scheduler.timesteps.reduce((x, t) => scheduler.step(fakeDenoiser(x, t), t, x, { generator }).prevSample, randn(1)),
  );
  expectEqual(last, 'ddpm/all_training_steps');
  last.dispose();
});

test('flows scale noise under their own name too', () => {
  const scheduler = new FlowMatchEulerDiscreteScheduler();
  scheduler.setTimesteps(10);
  const timesteps = [scheduler.timesteps[2]!, scheduler.timesteps[7]!];
  tf.tidy(() =>
    expectEqual(scheduler.scaleNoise(randn(1), timesteps, randn(2)), 'add_noise/FlowMatchEulerDiscreteScheduler'),
  );
});

describe('a long schedule', () => {
  test.each(['deis', 'dpmpp_2m'])('of %s keeps its order to the end from 15 steps on', (name) => {
    const last = (steps: number, lowerOrderFinal: boolean): Float32Array => {
      const scheduler = createScheduler(name, SD, { solverOrder: 3, lowerOrderFinal, ...FINAL_LEVEL[name] });
      scheduler.setTimesteps(steps);
      return tf.tidy(() => {
        const step = (x: tf.Tensor, t: number) => scheduler.step(fakeDenoiser(x, t), t, x).prevSample;
        return scheduler.timesteps.reduce(step, randn(1)).dataSync() as Float32Array;
      });
    };
    expect(last(14, true)).not.toEqual(last(14, false));
    expect(last(15, true)).toEqual(last(15, false));
  });

  test.each(['ddim', 'euler', 'dpmpp_2m'])('of %s is spaced trailing whatever the number of steps', (name) => {
    const scheduler = createScheduler(name, SD, { timestepSpacing: 'trailing' });
    for (const steps of [7, 30, 31, 50, 100, 999]) {
      scheduler.setTimesteps(steps);
      const expected = Array.from({ length: steps }, (_, i) => Math.round(1000 - (i * 1000) / steps) - 1);
      expect(scheduler.timesteps).toHaveLength(steps);
      scheduler.timesteps.forEach((t, i) => {
        // halves are rounded to the even neighbour
        expect(Math.abs(t - expected[i]!)).toBeLessThanOrEqual((i * 2000) % steps === 0 ? 1 : 0);
      });
    }
  });
});

test.each(['use_exponential_sigmas', 'use_karras_sigmas', 'use_beta_sigmas'])(
  '%s end at the levels that are set',
  (key) => {
    const scheduler = new EulerDiscreteScheduler({ ...SD, [key]: true, sigma_min: 0.1, sigma_max: 10 });
    scheduler.setTimesteps(6);
    expect(scheduler.sigmas[0]).toBeCloseTo(10, 4);
    expect(scheduler.sigmas[5]).toBeCloseTo(0.1, 6);
    const usual = new EulerDiscreteScheduler({ ...SD, [key]: true });
    usual.setTimesteps(6);
    expect(usual.sigmas[0]).toBeCloseTo(14.6146, 3);
    expect(usual.sigmas[5]).toBeCloseTo(0.0292, 3);
  },
);

test('DPM2 ancestral takes two steps', () => {
  const scheduler = createScheduler('dpm2_a', SD);
  scheduler.setTimesteps(2);
  expect(scheduler.timesteps.every(Number.isFinite)).toBe(true);
  const last = tf.tidy(() => {
    const generator = new TorchGenerator(9);
    const step = (x: tf.Tensor, t: number) =>
      scheduler.step(fakeDenoiser(scheduler.scaleModelInput(x, t), t), t, x, { generator }).prevSample;
    return scheduler.timesteps.reduce(step, tf.mul(randn(1), scheduler.initNoiseSigma) as tf.Tensor).dataSync();
  });
  expect(last.every(Number.isFinite)).toBe(true);
});

test('thresholding clips each picture to its own quantile, without reading it back', () => {
  // the magnitudes of the last one stay below 1, where nothing is clipped
  const values = new TorchGenerator(3).randn([3, 101]).map((x, i) => [3, 2, 0.2][Math.floor(i / 101)]! * x);
  const expected = [0, 1, 2].flatMap((item) => {
    const row = [...values.slice(item * 101, (item + 1) * 101)];
    const sorted = row.map(Math.abs).sort((a, b) => a - b);
    const bound = Math.min(Math.max(sorted[95]!, 1), 5.5);
    return row.map((x) => Math.min(Math.max(x, -bound), bound) / bound);
  });
  tf.tidy(() => {
    const sample = tf.tensor(values, [3, 101, 1, 1]);
    const read = jest.spyOn(tf.Tensor.prototype, 'dataSync');
    const thresholded = thresholdSample(sample, 0.95, 5.5);
    expect(read).not.toHaveBeenCalled();
    read.mockRestore();
    expect(relativeL2(thresholded.dataSync(), expected)).toBeLessThan(1e-6);
    const broken = thresholdSample(tf.tensor2d([[1, Number.NaN, 4, 3]]), 0.5, 2).dataSync();
    expect(broken).toHaveLength(4);
  });
});
