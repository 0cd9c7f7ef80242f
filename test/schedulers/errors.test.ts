import '@tensorflow/tfjs-backend-cpu';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../src/errors.js';
import {
  createScheduler,
  DDIMScheduler,
  DPMSolverMultistepScheduler,
  EulerDiscreteScheduler,
  findScheduler,
  LMSDiscreteScheduler,
  PNDMScheduler,
  schedulerFromConfig,
  schedulerNames,
  UniPCMultistepScheduler,
} from '../../src/schedulers/index.js';
import { setWarningHandler } from '../../src/utils/logging.js';

const six = [
  'DDIMScheduler',
  'PNDMScheduler',
  'EulerDiscreteScheduler',
  'EulerAncestralDiscreteScheduler',
  'DPMSolverMultistepScheduler',
  'LMSDiscreteScheduler',
];

let x: tf.Tensor;
beforeAll(async () => {
  tf.env().set('IS_TEST', true);
  await tf.setBackend('cpu');
});
beforeEach(() => {
  x = tf.ones([1, 2, 2, 4]);
});
afterEach(() => {
  x.dispose();
  expect(tf.memory().numTensors).toBe(0);
});

/** Runs `fn`, which must throw an InvalidArgumentError with this message. */
function expectRefusal(fn: () => unknown, message: RegExp): void {
  expect(fn).toThrow(InvalidArgumentError);
  expect(fn).toThrow(message);
}

describe.each(schedulerNames().classNames)('%s refuses', (name) => {
  test.each([0, -1, 2.5, Number.NaN, '10' as unknown as number])('%s steps', (steps) => {
    expectRefusal(() => createScheduler(name).setTimesteps(steps), /positive integer.*got/);
  });

  test('no number of steps at all', () => {
    expect(() => createScheduler(name).setTimesteps()).toThrow(InvalidArgumentError);
  });

  test('a step before setTimesteps', () => {
    if (name !== 'DDPMScheduler') {
      expectRefusal(() => createScheduler(name).step(x, 999, x), /call setTimesteps/);
    }
  });

  test('a step without a timestep, or at one that is not in the schedule', () => {
    const scheduler = createScheduler(name, { skip_prk_steps: true });
    scheduler.setTimesteps(4);
    expectRefusal(() => scheduler.step(x, undefined as unknown as number, x), /timestep/);
    expectRefusal(() => scheduler.step(x, 12345, x), /timestep expects .* got 12345/);
  });

  test('a model output of another shape than the sample', () => {
    const scheduler = createScheduler(name, { skip_prk_steps: true });
    scheduler.setTimesteps(4);
    const other = tf.ones([1, 2, 2, 3]);
    expectRefusal(() => scheduler.step(other, scheduler.timesteps[0]!, x), /\[1,2,2,4\].*got a tensor \[1,2,2,3\]/);
    other.dispose();
  });

  test('a constructor option that it does not have', () => {
    const { scheduler: Scheduler } = findScheduler(name);
    expectRefusal(() => new Scheduler({ betaFoo: 1 }), /there is no option "beta_foo"; it takes/);
  });

  test('a configuration that is no object', () => {
    for (const config of [null, 'scheduler', []]) {
      expect(() => createScheduler(name, config as never)).toThrow(InvalidArgumentError);
    }
  });
});

describe.each(six)('%s refuses', (name) => {
  test.each([
    ['prediction_type', 'noise', /prediction_type expects one of 'epsilon', .* got "noise"/],
    ['beta_schedule', 'cosine', /beta_schedule expects one of 'linear', .* got "cosine"/],
    ['timestep_spacing', 'even', /timestep_spacing expects one of 'linspace', 'leading', 'trailing', got "even"/],
    ['num_train_timesteps', 0, /num_train_timesteps expects an integer from 1 to 100000, got 0/],
    ['beta_start', 'small', /beta_start expects a finite number, got "small"/],
    ['beta_end', Number.NaN, /beta_end expects a finite number, got NaN/],
    [
      'trained_betas',
      ['a'],
      /trained_betas expects a list of 1 to 100000 entries, each a finite number, or null, got \["a"\]/,
    ],
    ['steps_offset', 0.5, /steps_offset expects an integer from -100000 to 100000, got 0.5/],
  ])('%s %p', (key, value, message) => {
    expectRefusal(() => createScheduler(name, { [key]: value }), message);
  });

  test('steps after the last one', () => {
    const scheduler = createScheduler(name, { skip_prk_steps: true });
    scheduler.setTimesteps(1);
    tf.dispose({ ...scheduler.step(x, scheduler.timesteps[0]!, x) });
    if (name !== 'DDIMScheduler' && name !== 'PNDMScheduler') {
      expectRefusal(() => scheduler.step(x, scheduler.timesteps[0]!, x), /all 1 timesteps are done/);
    }
  });
});

test.each([
  ['EulerDiscreteScheduler', 'flow_prediction'],
  ['EulerAncestralDiscreteScheduler', 'sample'],
  ['PNDMScheduler', 'sample'],
  ['DDIMScheduler', 'flow_prediction'],
  ['LMSDiscreteScheduler', 'flow_prediction'],
] as const)('%s cannot work with %s', (name, prediction_type) => {
  const made = createScheduler(name, { prediction_type });
  expectRefusal(() => made.setTimesteps(5), new RegExp(`prediction_type expects one of .* got "${prediction_type}"`));
});

test('more steps than were trained, where each needs its own', () => {
  expectRefusal(() => new DDIMScheduler().setTimesteps(1001), /at most num_train_timesteps = 1000, got 1001/);
  expectRefusal(() => createScheduler('ddpm').setTimesteps(1001), /at most/);
  expectRefusal(() => createScheduler('lcm').setTimesteps(51), /at most original_inference_steps x strength/);
});

test('Runge-Kutta steps need four inference steps', () => {
  expectRefusal(() => new PNDMScheduler().setTimesteps(3), /at least 4 inference steps, got 3; set skip_prk_steps/);
});

describe('custom schedules', () => {
  test('are refused where diffusers has none', () => {
    expectRefusal(() => new DDIMScheduler().setTimesteps(null, { timesteps: [9, 5] }), /takes no timesteps/);
    expectRefusal(() => new LMSDiscreteScheduler().setTimesteps(null, { sigmas: [9, 5] }), /takes no sigmas/);
    expectRefusal(() => new PNDMScheduler().setTimesteps(5, { strength: 0.5 }), /takes no strength/);
  });

  test('exclude each other and a number of steps', () => {
    const scheduler = new EulerDiscreteScheduler();
    expectRefusal(
      () => scheduler.setTimesteps(5, { timesteps: [9, 5] }),
      /exactly one of .* got numInferenceSteps and/,
    );
    expectRefusal(() => scheduler.setTimesteps(null, { timesteps: [9], sigmas: [9, 0] }), /got timesteps and sigmas/);
    expectRefusal(() => scheduler.setTimesteps(null, { sigmas: [9] }), /at least two noise levels/);
    expectRefusal(() => scheduler.setTimesteps(null, { timesteps: [] }), /a list of 1 to 100000 finite numbers, got/);
    expectRefusal(
      () => scheduler.setTimesteps(null, { timesteps: [9, Number.NaN] }),
      /a list of 1 to 100000 finite numbers, got/,
    );
  });

  test('do not go with converted sigmas', () => {
    const options = { timesteps: [900, 5] };
    expectRefusal(() => new EulerDiscreteScheduler({ useKarrasSigmas: true }).setTimesteps(null, options), /karras/);
    expectRefusal(
      () => new DPMSolverMultistepScheduler({ useLuLambdas: true }).setTimesteps(null, options),
      /takes no timesteps with use_lu_lambdas/,
    );
    expectRefusal(() => createScheduler('heun_karras').setTimesteps(null, options), /karras/);
  });

  test('of DDPM descend within the training steps', () => {
    expectRefusal(
      () => createScheduler('ddpm').setTimesteps(null, { timesteps: [5, 9] }),
      /descending integers from below 1000 to 0/,
    );
    expectRefusal(() => createScheduler('ddpm').setTimesteps(null, { timesteps: [1000, 9] }), /below 1000/);
  });
});

test('configurations that contradict themselves', () => {
  const both = { useKarrasSigmas: true, useBetaSigmas: true };
  expectRefusal(() => new EulerDiscreteScheduler(both), /at most one conversion/);
  expectRefusal(() => new DPMSolverMultistepScheduler(both), /at most one conversion/);
  expectRefusal(() => new LMSDiscreteScheduler(both), /at most one conversion/);
  expectRefusal(() => new DPMSolverMultistepScheduler({ algorithmType: 'dpmsolver' }), /set final_sigmas_type/);
  expectRefusal(
    () => new DPMSolverMultistepScheduler({ solverOrder: 4 }),
    /solver_order expects an integer from 1 to 3, got 4/,
  );
  expectRefusal(
    () => new DPMSolverMultistepScheduler({ algorithmType: 'dpm' as never }),
    /algorithm_type expects one of/,
  );
  expectRefusal(() => new UniPCMultistepScheduler({ shiftTerminal: 0.1 }), /use_flow_sigmas/);
});

test('options of a step that cannot be', () => {
  const ddim = new DDIMScheduler();
  ddim.setTimesteps(3);
  const generator = {} as never;
  expectRefusal(() => ddim.step(x, ddim.timesteps[0]!, x, { generator, varianceNoise: x, eta: 1 }), /not both/);
  const lms = new LMSDiscreteScheduler();
  lms.setTimesteps(3);
  expectRefusal(() => lms.step(x, lms.timesteps[0]!, x, { order: 0 }), /order expects a positive integer, got 0/);
  const tcd = createScheduler('tcd');
  tcd.setTimesteps(3);
  expectRefusal(() => tcd.step(x, tcd.timesteps[0]!, x, { eta: 1.5 }), /eta expects a number from 0 to 1/);
});

describe('what a user writes', () => {
  test.each([
    ['solver_ordr', 'solver_order'],
    ['solverOrdr', 'solver_order'],
    ['useKaras', undefined],
    ['use_karas_sigmas', 'use_karras_sigmas'],
  ])('%s is refused with the nearest right name', (name, nearest) => {
    const message = nearest ? new RegExp(`did you mean '${nearest}'`) : /there is no option "use_karas"; it takes/;
    expectRefusal(() => createScheduler('dpmpp_2m', {}, { [name]: 3 }), message);
    expectRefusal(() => DPMSolverMultistepScheduler.fromConfig({}, { [name]: 3 }), message);
    expectRefusal(() => new DPMSolverMultistepScheduler({ [name]: 3 }), message);
  });

  test('cannot use up memory or time', () => {
    expectRefusal(
      () => createScheduler('euler', { num_train_timesteps: 1e9 }),
      /integer from 1 to 100000, got 1000000000/,
    );
    expectRefusal(
      () => createScheduler('euler').setTimesteps(1e9),
      /a positive integer of at most 100000, got 1000000000/,
    );
    expectRefusal(() => createScheduler('euler', { trained_betas: Array(100_001).fill(0.1) }), /got a list of 100001/);
    expectRefusal(() => createScheduler('lcm', { original_inference_steps: 1e12 }), /integer from 1 to 100000/);
  });
});

test('the entries of another scheduler are kept, and those of none are warned about once', () => {
  const warnings: string[] = [];
  const previous = setWarningHandler((message) => warnings.push(message));
  const config = { _class_name: 'EulerDiscreteScheduler', skip_prk_steps: true, _note: 1, invented_entry: 5 };
  const schedulers = [schedulerFromConfig(config), schedulerFromConfig(config)];
  setWarningHandler(previous);
  expect(schedulers[0]!.config).toMatchObject({ skip_prk_steps: true, invented_entry: 5 });
  expect(warnings).toEqual(['[scheduler_config.json] the entry "invented_entry" is not known and has no effect']);
});

test('a third order that an algorithm does not have', () => {
  const scheduler = new DPMSolverMultistepScheduler({
    algorithmType: 'sde-dpmsolver',
    finalSigmasType: 'sigma_min',
    solverOrder: 3,
    lowerOrderFinal: false,
  });
  expectRefusal(() => scheduler.setTimesteps(5), /no third order for algorithm_type "sde-dpmsolver"/);
  const edm = { algorithm_type: 'sde-dpmsolver++', solver_order: 3 };
  expectRefusal(() => createScheduler('edm_dpmpp_2m', edm), /no third order for algorithm_type "sde-dpmsolver\+\+"/);
});

test('a begin index outside the schedule', () => {
  const scheduler = new EulerDiscreteScheduler();
  scheduler.setTimesteps(3);
  expectRefusal(() => scheduler.setBeginIndex(3), /index into 3 timesteps, got 3/);
  expectRefusal(() => scheduler.setBeginIndex(-1), /got -1/);
});

test.each(['LCMScheduler', 'DPMSolverSDEScheduler', 'DDPMScheduler'])(
  '%s refuses a list with no generator in it',
  (name) => {
    const scheduler = createScheduler(name);
    scheduler.setTimesteps(4);
    const step = () => scheduler.step(x, scheduler.timesteps[0]!, x, { generator: [undefined] as never });
    expect(step).toThrow(/generator expects a TorchGenerator, or one for each item of the batch/);
  },
);
