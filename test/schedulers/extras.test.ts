import '@tensorflow/tfjs-backend-cpu';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import {
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

describe.each(noises)('%s', (className) => {
  const make = (): SchedulerMixin => {
    const scheduler = findScheduler(className).scheduler.fromConfig(className.startsWith('Flow') ? {} : SD);
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
