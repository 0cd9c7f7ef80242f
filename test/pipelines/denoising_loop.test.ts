import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { AbortedError, InvalidArgumentError } from '../../src/errors.js';
import { AutoencoderKL, pickBackend, TorchGenerator } from '../../src/index.js';
import { decodeLatents, encodeImage } from '../../src/pipelines/common/latents.js';
import { applySchedule } from '../../src/pipelines/common/schedule.js';
import {
  Conditioning,
  denoisingLoop,
  GuidedDenoiser,
  type LoopStep,
  runLoop,
  type StepDecision,
} from '../../src/pipelines/index.js';
import {
  createScheduler,
  EulerDiscreteScheduler,
  FlowMatchEulerDiscreteScheduler,
} from '../../src/schedulers/index.js';
import { relativeL2 } from '../support/compare.js';

let before: number;
beforeAll(() => pickBackend('wasm'));
beforeEach(() => {
  before = tf.memory().numTensors;
});
afterEach(() => {
  expect(tf.memory().numTensors).toBe(before);
});

const CONFIG = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear' };

function ready(steps = 6): EulerDiscreteScheduler {
  const scheduler = new EulerDiscreteScheduler(CONFIG);
  scheduler.setTimesteps(steps);
  return scheduler;
}

/** A loop whose denoiser predicts a tenth of the latents, and what it was called with. */
function simple(change: Partial<Parameters<typeof denoisingLoop<tf.Tensor>>[0]> = {}) {
  const calls: LoopStep[] = [];
  const scheduler = ready();
  const predict = async (x: tf.Tensor, _t: number, step: LoopStep) => {
    calls.push(step);
    await Promise.resolve();
    return tf.tidy(() => tf.mul(x, 0.1));
  };
  const inputs = {
    scheduler,
    denoiser: { predict },
    latents: tf.ones([2, 3]) as tf.Tensor,
    generator: new TorchGenerator(1),
  };
  return { loop: denoisingLoop({ ...inputs, ...change }), calls, scheduler };
}

describe('denoisingLoop', () => {
  test('takes the steps from begin to end, of latents of any rank', async () => {
    const { loop, calls, scheduler } = simple({ begin: 2, end: 5 });
    const final = await runLoop(loop);
    expect(final.shape).toEqual([2, 3]);
    expect(calls.map(({ step, total }) => [step, total])).toEqual([
      [0, 3],
      [1, 3],
      [2, 3],
    ]);
    expect(calls.map(({ timestep }) => timestep)).toEqual(scheduler.timesteps.slice(2, 5));
    expect(calls.map(({ nextTimestep }) => nextTimestep)).toEqual([...scheduler.timesteps.slice(3, 5), undefined]);
    expect(calls.map(({ sigma }) => sigma)).toEqual(Array.from(scheduler.sigmas.slice(2, 5)));
    final.dispose();
  });

  test('mixes after each step what the callback then sees', async () => {
    const seen: number[] = [];
    const { loop } = simple({ mix: (x, { step }) => tf.fill(x.shape, step) });
    const final = await runLoop(loop, { callbackOnStepEnd: ({ latents }) => void seen.push(latents.dataSync()[0]!) });
    expect(seen).toEqual([0, 1, 2, 3, 4, 5]);
    final.dispose();
  });

  test.each<[string, () => object]>([
    ['predicting fails', () => ({ denoiser: { predict: () => Promise.reject(new Error('no')) } })],
    [
      'mixing fails',
      () => ({
        mix: () => {
          throw new Error('no');
        },
      }),
    ],
    ['a prediction has another shape', () => ({ denoiser: { predict: () => tf.zeros([5]) } })],
  ])('leaves nothing behind when %s', async (_, change) => {
    await expect(runLoop(simple(change()).loop)).rejects.toThrow(/no|modelOutput expects/);
  });

  test('leaves nothing behind when it is stopped by its signal, its callback, or by nobody asking on', async () => {
    await expect(runLoop(simple({ signal: AbortSignal.abort() }).loop)).rejects.toThrow(AbortedError);
    const failing = () => {
      throw new Error('enough');
    };
    await expect(runLoop(simple().loop, { callbackOnStepEnd: failing as never })).rejects.toThrow('enough');
    const { loop } = simple();
    await loop.next();
    await loop.return(undefined as never);
    const stopping = simple();
    const final = await runLoop(stopping.loop, {
      callbackOnStepEnd: ({ step }) => ({ stop: step === 1 }) as StepDecision<never>,
    });
    expect(stopping.calls).toHaveLength(2);
    final.dispose();
  });
});

describe('GuidedDenoiser', () => {
  const branch = (value: number) => ({
    encoderHiddenStates: tf.fill<tf.Rank.R3>([2, 1, 1], value),
    pooled: tf.fill<tf.Rank.R2>([2, 1], 10 * value),
  });
  const three = () => new Conditioning({ conditional: branch(3), imageOnly: branch(2), unconditional: branch(1) });
  const at = (step: number, sigma = 10): LoopStep => ({ step, total: 4, sigma, timestep: 1, nextTimestep: undefined });

  test("three parts (InstructPix2Pix): each branch's own conditions, combined as the caller says", async () => {
    const conditioning = three();
    const batches: number[] = [];
    const denoiser = new GuidedDenoiser<tf.Tensor>(
      (x, _, { encoderHiddenStates, pooled }) => {
        batches.push(x.shape[0]!);
        return tf.tidy(() => tf.add(x, tf.add(tf.squeeze(encoderHiddenStates, [2]), pooled!)));
      },
      conditioning,
      {
        guidanceScale: 5,
        // text and picture of Brooks et al. 2023, equation 3
        combine: ({ conditional, imageOnly, unconditional }, scale) =>
          tf.add(
            tf.add(unconditional!, tf.mul(scale, tf.sub(conditional!, imageOnly!))),
            tf.mul(2, tf.sub(imageOnly!, unconditional!)),
          ),
      },
    );
    const x = tf.zeros([2, 1]);
    const output = await denoiser.predict(x, 1, at(0));
    expect(Array.from(output.dataSync())).toEqual([88, 88]); // 11 + 5 (33 - 22) + 2 (22 - 11)
    denoiser.change({ guidanceScale: 1 });
    const alone = await denoiser.predict(x, 1, at(1));
    expect(Array.from(alone.dataSync())).toEqual([33, 33]);
    expect(batches).toEqual([6, 2]);
    tf.dispose([x, output, alone]);
    conditioning.dispose();
  });

  test('a failing model and a failing combination leave nothing behind', async () => {
    const conditioning = three();
    const x = tf.zeros([2, 1]);
    const failing = () => {
      throw new Error('out of order');
    };
    const options = { guidanceScale: 2 };
    await expect(new GuidedDenoiser<tf.Tensor>(failing, conditioning, options).predict(x, 1, at(0))).rejects.toThrow(
      'out',
    );
    const combining = new GuidedDenoiser<tf.Tensor>((y) => tf.clone(y), conditioning, { ...options, combine: failing });
    await expect(combining.predict(x, 1, at(0))).rejects.toThrow('out');
    x.dispose();
    conditioning.dispose();
  });
});

describe('Conditioning', () => {
  const make = () =>
    new Conditioning({
      unconditional: { encoderHiddenStates: tf.zeros([1, 2, 3]) },
      conditional: { encoderHiddenStates: tf.ones([1, 2, 3]) },
    });

  test('has one cache for each way of taking branches, and new ones after other numbers', () => {
    const conditioning = make();
    const [both, alone] = [conditioning.take(), conditioning.take(['conditional'])];
    expect(both.encoderHiddenStates.shape).toEqual([2, 2, 3]);
    expect(conditioning.take()).toBe(both);
    expect(alone.cache).not.toBe(both.cache);
    conditioning.replace('test', 'encoderHiddenStates', 'embeds', tf.fill([2, 2, 3], 7));
    expect(conditioning.take().cache).not.toBe(both.cache);
    expect(conditioning.take(['unconditional']).encoderHiddenStates.dataSync()).toEqual(new Float32Array(6).fill(7));
    conditioning.dispose();
  });

  test('refuses other shapes, and goes on with what it has', () => {
    const conditioning = make();
    const wrong = [tf.zeros([1, 2, 3]), [1, 2], null];
    for (const tensor of wrong) {
      const replace = () => conditioning.replace('test', 'encoderHiddenStates', 'embeds', tensor as tf.Tensor);
      expect(replace).toThrow(InvalidArgumentError);
    }
    expect(conditioning.take().encoderHiddenStates.shape).toEqual([2, 2, 3]);
    conditioning.dispose();
  });
});

describe('latents and schedules', () => {
  test('shift and scale of a VAE: (x - shift) scale, and back', () => {
    const config = {
      block_out_channels: [8],
      down_block_types: ['DownEncoderBlock2D'],
      up_block_types: ['UpDecoderBlock2D'],
      norm_num_groups: 4,
    };
    const make = (extra: object) => AutoencoderKL.fromConfig({ ...config, ...extra }, { init: 'random', seed: 3 });
    const [plain, shifted] = [make({ scaling_factor: 1 }), make({ scaling_factor: 0.3611, shift_factor: 0.1159 })];
    const image = tf.randomUniform<tf.Rank.R4>([1, 4, 4, 3], -1, 1);
    const encode = (vae: AutoencoderKL) => encodeImage(vae, image, new TorchGenerator(1));
    const [raw, latents] = [encode(plain), encode(shifted)];
    const expected = raw.dataSync().map((x) => (x - 0.1159) * 0.3611);
    expect(relativeL2(latents.dataSync(), expected)).toBeLessThan(1e-6);
    const [a, b] = [decodeLatents(plain, raw), decodeLatents(shifted, latents)];
    expect(relativeL2(b.dataSync(), a.dataSync())).toBeLessThan(1e-5);
    tf.dispose([image, raw, latents, a, b]);
    plain.dispose();
    shifted.dispose();
  });

  test('mu shifts a flow schedule; strength counts calls of a second-order scheduler', () => {
    const flow = new FlowMatchEulerDiscreteScheduler({ use_dynamic_shifting: true });
    const twin = new FlowMatchEulerDiscreteScheduler({ use_dynamic_shifting: true });
    expect(applySchedule('test', flow, { numInferenceSteps: 4, mu: 0.7 })).toBe(0);
    twin.setTimesteps(4, { mu: 0.7 });
    expect(flow.timesteps).toEqual(twin.timesteps);
    const heun = createScheduler('HeunDiscreteScheduler', CONFIG);
    expect(applySchedule('test', heun, { numInferenceSteps: 10, strength: 0.3 })).toBe(14);
    expect(heun.beginIndex).toBe(14);
    expect(() => applySchedule('test', heun, { numInferenceSteps: 10, strength: 0.05 })).toThrow(
      /\[test\] strength expects/,
    );
  });
});
