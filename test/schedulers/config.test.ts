import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { parsePythonJson, stringifyPythonJson } from '../../src/config/config.js';
import { InvalidArgumentError } from '../../src/errors.js';
import {
  createScheduler,
  DDIMScheduler,
  DPMSolverMultistepScheduler,
  EulerDiscreteScheduler,
  findScheduler,
  PNDMScheduler,
  type SchedulerMixin,
  schedulerFromConfig,
  schedulerNames,
} from '../../src/schedulers/index.js';

type Config = Record<string, unknown>;
const chains: { arguments: Config; classes: string[]; configs: Config[]; reloaded: Config }[] = JSON.parse(
  readFileSync('test/fixtures/scheduler_config_chains.json', 'utf8'),
  (_, value) => (value === '-Infinity' ? -Infinity : value),
);
const shipped = JSON.parse(readFileSync('weights/tiny-shapes/scheduler/scheduler_config.json', 'utf8'));

describe.each(chains)('$classes', ({ arguments: options, classes, configs, reloaded }) => {
  const [first, ...others] = classes.map((name) => findScheduler(name).scheduler);

  test('hands its configuration on as diffusers does', () => {
    let scheduler: SchedulerMixin = new first!(options);
    expect(scheduler.toConfig()).toEqual(configs[0]);
    for (const [i, other] of others.entries()) {
      scheduler = other.fromConfig(scheduler.config);
      expect(scheduler.toConfig()).toEqual(configs[i + 1]);
    }
  });

  test('is the same again from a saved configuration', () => {
    expect(first!.fromConfig(configs.at(-1)!).toConfig()).toEqual(reloaded);
  });
});

test('takes a scheduler_config.json as it is and gives it back whole', () => {
  const scheduler = schedulerFromConfig(shipped);
  expect(scheduler).toBeInstanceOf(EulerDiscreteScheduler);
  expect(scheduler.toConfig()).toMatchObject(shipped);
  expect(schedulerFromConfig(scheduler.toConfig()).toConfig()).toEqual(scheduler.toConfig());
});

test('overrides win, in camelCase and snake_case, over the configuration', () => {
  const scheduler = EulerDiscreteScheduler.fromConfig(shipped, { useKarrasSigmas: true, prediction_type: 'sample' });
  expect(scheduler.config).toMatchObject({ use_karras_sigmas: true, prediction_type: 'sample', beta_start: 0.00085 });
  expect(new EulerDiscreteScheduler({ useKarrasSigmas: true }).config.use_karras_sigmas).toBe(true);
  expect(new EulerDiscreteScheduler({ use_karras_sigmas: true }).config.use_karras_sigmas).toBe(true);
});

test('a configuration cannot be changed from outside', () => {
  const scheduler = new DDIMScheduler();
  expect(() => Object.assign(scheduler.config, { beta_end: 1 })).toThrow(TypeError);
});

test('an infinite value survives a file, as Python writes it and as JSON writes it', () => {
  const config = new DPMSolverMultistepScheduler({ betaStart: 0.00085 }).toConfig();
  const text = stringifyPythonJson(config);
  expect(text).toContain('"lambda_min_clipped": -Infinity');
  for (const json of [parsePythonJson(text), JSON.parse(JSON.stringify(config))]) {
    expect(DPMSolverMultistepScheduler.fromConfig(json as Record<string, unknown>).toConfig()).toEqual(config);
  }
});

test('values that only other classes have are mapped', () => {
  const config = new (findScheduler('deis').scheduler)({ solver_order: 3 }).config;
  const scheduler = DPMSolverMultistepScheduler.fromConfig({ ...config, algorithm_type: 'deis', solver_type: 'bh2' });
  expect(scheduler.config).toMatchObject({ algorithm_type: 'dpmsolver++', solver_type: 'midpoint', solver_order: 3 });
});

describe('names', () => {
  test.each([
    ['ddim', 'DDIMScheduler', {}],
    ['pndm', 'PNDMScheduler', {}],
    ['euler', 'EulerDiscreteScheduler', { use_karras_sigmas: false }],
    ['Euler a', 'EulerAncestralDiscreteScheduler', {}],
    ['euler_ancestral', 'EulerAncestralDiscreteScheduler', {}],
    ['euler-karras', 'EulerDiscreteScheduler', { use_karras_sigmas: true }],
    ['lms', 'LMSDiscreteScheduler', {}],
    ['LMS Karras', 'LMSDiscreteScheduler', { use_karras_sigmas: true }],
    ['DPM++ 2M', 'DPMSolverMultistepScheduler', { algorithm_type: 'dpmsolver++', use_karras_sigmas: false }],
    ['dpmpp_2m_karras', 'DPMSolverMultistepScheduler', { use_karras_sigmas: true }],
    ['DPM++ 2M SDE', 'DPMSolverMultistepScheduler', { algorithm_type: 'sde-dpmsolver++' }],
    ['DPMSolverMultistepScheduler', 'DPMSolverMultistepScheduler', {}],
  ])('%s is %s', (name, className, entries) => {
    const scheduler = createScheduler(name, shipped);
    expect(scheduler.className).toBe(className);
    expect(scheduler.config).toMatchObject({ beta_start: 0.00085, ...entries });
  });

  test('every class is known by its name and is made from its own configuration', () => {
    const { classNames, shortNames } = schedulerNames();
    expect(classNames).toHaveLength(23);
    for (const name of classNames) {
      const scheduler = createScheduler(name);
      expect(schedulerFromConfig(scheduler.toConfig()).toConfig()).toEqual(scheduler.toConfig());
      expect(scheduler.className).toBe(name);
    }
    for (const name of shortNames) {
      expect(classNames).toContain(createScheduler(name).className);
    }
  });

  test('overrides win over what a short name stands for', () => {
    expect(createScheduler('euler_karras', shipped, { useKarrasSigmas: false }).config.use_karras_sigmas).toBe(false);
  });

  test('an unknown one is an error that lists the known ones', () => {
    expect(() => createScheduler('eular')).toThrow(InvalidArgumentError);
    expect(() => createScheduler('eular')).toThrow(/"eular" is unknown.*euler_ancestral.*PNDMScheduler/);
    expect(() => schedulerFromConfig({ _class_name: 'FooScheduler' })).toThrow(/FooScheduler/);
    expect(() => schedulerFromConfig({})).toThrow(/_class_name/);
  });
});

test('names the classes that it can be turned into', () => {
  expect(new PNDMScheduler().compatibles).toContain('EulerDiscreteScheduler');
});
