import '@tensorflow/tfjs-backend-cpu';
import { beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { BrownianTree, seedSequence } from '../../src/schedulers/common/brownian_tree.js';
import { createScheduler } from '../../src/schedulers/index.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { relativeL2 } from '../support/compare.js';
import { fakeDenoiser } from '../support/scheduler_case.js';

beforeAll(async () => {
  tf.env().set('IS_TEST', true);
  await tf.setBackend('cpu');
});

test("seeds are those of numpy's SeedSequence with a pool of 24 words", () => {
  // np.random.SeedSequence(12345, pool_size=24).generate_state(3)
  expect(seedSequence([12345], 3)).toEqual([2888090517, 4151165838, 1159728038]);
  // np.random.SeedSequence(12345678901234567, spawn_key=(5, 3), pool_size=24).generate_state(4)
  const words = [12345678901234567n & 0xffffffffn, 12345678901234567n >> 32n].map(Number);
  expect(seedSequence([...words, 5, 3], 4, 2)).toEqual([2889846680, 1321783888, 219226134, 3739979786]);
});

describe('a tree', () => {
  const tree = new BrownianTree(0.0292, 14.6146, 20_000, 5n);

  test('gives increments that add up, in any order of questions', () => {
    const whole = tree.increment(1, 9);
    const [first, second] = [tree.increment(1, 4.25), tree.increment(4.25, 9)];
    expect(
      relativeL2(
        whole,
        first.map((w, i) => w + second[i]!),
      ),
    ).toBeLessThan(1e-6);
    expect(new BrownianTree(0.0292, 14.6146, 20_000, 5n).increment(4.25, 9)).toEqual(second);
  });

  test('gives increments of the variance of their time', () => {
    for (const [from, to] of [
      [0.0292, 14.6146],
      [0.5, 0.75],
      [3, 3.001],
    ] as const) {
      const values = tree.increment(from, to);
      const variance = values.reduce((sum, w) => sum + w * w, 0) / values.length;
      expect(Math.abs(variance / (to - from) - 1)).toBeLessThan(0.05);
    }
  });

  test('rounds times to six decimals, halves to the even one, as Python does', () => {
    const unit = new BrownianTree(0, 1, 16, 5n);
    // round(1 / 128, 6) is 0.007812, round(3 / 128, 6) is 0.023438
    expect(unit.increment(0, 1 / 128)).toEqual(unit.increment(0, 0.007812));
    expect(unit.increment(0, 3 / 128)).toEqual(unit.increment(0, 0.023438));
    expect(unit.increment(0, 0.007812)).not.toEqual(unit.increment(0, 0.007813));
  });

  test('stands still outside its interval and between equal times', () => {
    expect(tree.increment(20, 30).every((w) => w === 0)).toBe(true);
    expect(tree.increment(2, 2).every((w) => w === 0)).toBe(true);
  });
});

describe('DPMSolverSDE', () => {
  const draw = (config: object, batch: number, generator?: TorchGenerator | TorchGenerator[]): Float32Array[] => {
    const scheduler = createScheduler('dpmpp_sde', {}, config);
    scheduler.setTimesteps(4);
    return tf.tidy(() => {
      const start = tf.tile(tf.tensor(new TorchGenerator(1).randn(64), [1, 4, 4, 4]), [batch, 1, 1, 1]) as tf.Tensor;
      const step = (x: tf.Tensor, t: number) =>
        scheduler.step(fakeDenoiser(scheduler.scaleModelInput(x, t), t), t, x, { generator }).prevSample;
      const last = scheduler.timesteps.reduce(step, start).dataSync() as Float32Array;
      return Array.from({ length: batch }, (_, i) => last.slice(64 * i, 64 * (i + 1)));
    });
  };

  test('takes a seed for each picture, and draws each as alone', () => {
    const [first, second] = draw({ noiseSamplerSeed: [3, 4] }, 2);
    expect(first).toEqual(draw({ noiseSamplerSeed: 3 }, 1)[0]);
    expect(second).toEqual(draw({ noiseSamplerSeed: [4] }, 1)[0]);
    expect(() => draw({ noiseSamplerSeed: [1, 2, 3] }, 2)).toThrow(/one seed, or one per batch item \(2\), got 3/);
  });

  test('takes its seed from the generator otherwise', () => {
    const generators = (...seeds: number[]) => seeds.map((seed) => new TorchGenerator(seed));
    const [first, second] = draw({}, 2, generators(8, 9));
    expect(second).toEqual(draw({}, 1, generators(9))[0]);
    expect(first).not.toEqual(second);
    expect(draw({}, 1)[0]).not.toEqual(draw({}, 1)[0]);
  });
});
