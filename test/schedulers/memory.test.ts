import '@tensorflow/tfjs-backend-cpu';
import { beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { createScheduler, type SchedulerMixin, schedulerNames } from '../../src/schedulers/index.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { fakeDenoiser } from '../support/scheduler_case.js';

beforeAll(async () => {
  tf.env().set('IS_TEST', true);
  await tf.setBackend('cpu');
});

function start(): tf.Tensor {
  return tf.tensor(new TorchGenerator(1).randn(64), [1, 4, 4, 4]);
}

/** A loop without any tidy, in which every tensor is disposed by hand, as far as `count` steps. */
function run(scheduler: SchedulerMixin, count = Number.POSITIVE_INFINITY): Float32Array {
  const generator = new TorchGenerator(0);
  let x = start();
  for (const t of scheduler.timesteps.slice(0, count)) {
    const input = scheduler.scaleModelInput(x, t);
    const output = fakeDenoiser(input, t);
    const result = scheduler.step(output, t, x, { generator });
    expect(x.isDisposed || output.isDisposed || input.isDisposed).toBe(false);
    const { prevSample, ...others } = result;
    tf.dispose([x, input, output, ...Object.values(others)]);
    x = prevSample;
  }
  const values = x.dataSync() as Float32Array;
  x.dispose();
  return values.slice();
}

describe.each(schedulerNames().classNames)('%s', (name) => {
  const make = (): SchedulerMixin => {
    const scheduler = createScheduler(name);
    scheduler.setTimesteps(6);
    return scheduler;
  };

  test('leaves nothing behind after a loop, and repeats it', () => {
    const before = tf.memory().numTensors;
    const scheduler = make();
    const first = run(scheduler);
    expect(tf.memory().numTensors).toBe(before);
    scheduler.setTimesteps(6);
    expect(run(scheduler)).toEqual(first);
    expect(tf.memory().numTensors).toBe(before);
  });

  test('frees its history when a loop is left early', () => {
    const before = tf.memory().numTensors;
    const scheduler = make();
    run(scheduler, 3);
    scheduler.dispose();
    expect(tf.memory().numTensors).toBe(before);
    scheduler.setTimesteps(6);
    const again = run(scheduler);
    run(scheduler.setTimesteps(6) ?? scheduler, 3);
    scheduler.setTimesteps(6);
    expect(tf.memory().numTensors).toBe(before);
    expect(run(scheduler)).toEqual(again);
  });

  test('works inside one tidy around the whole loop', () => {
    const before = tf.memory().numTensors;
    const outside = run(make());
    const inside = tf.tidy(() => run(make()));
    expect(inside).toEqual(outside);
    expect(tf.memory().numTensors).toBe(before);
  });

  test('takes any rank', () => {
    const scheduler = make();
    tf.tidy(() => {
      for (const shape of [[4], [2, 3], [1, 5, 4], [1, 2, 2, 2, 4]]) {
        scheduler.setTimesteps(4);
        const x = tf.ones(shape);
        const output = scheduler.step(x, scheduler.timesteps[0]!, x);
        expect(output.prevSample.shape).toEqual(shape);
      }
    });
    scheduler.dispose();
  });

  test('makes noise of its own without a generator', () => {
    const scheduler = make();
    const draw = () =>
      tf.tidy(() => {
        scheduler.setTimesteps(6);
        return scheduler.timesteps
          .reduce((x, t) => scheduler.step(fakeDenoiser(x, t), t, x, { eta: 0.5 }).prevSample, start())
          .dataSync();
      });
    const stochastic = /Ancestral|DDIMScheduler|DDPM|LCM|TCD|SASolver|SDE/.test(name);
    expect(draw().every(Number.isFinite)).toBe(true);
    if (stochastic) {
      expect(draw()).not.toEqual(draw());
    } else {
      expect(draw()).toEqual(draw());
    }
  });
});
