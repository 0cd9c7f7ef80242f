import { describe, expect, test } from '@jest/globals';
import { createScheduler } from '../../src/schedulers/index.js';
import { previewSteps } from '../../src/server/engine/previews.js';
import { COSTS, FairClock, LAST_PLACE } from '../../src/server/jobs/fairness.js';
import { takeLoraTags } from '../../src/server/request/lora_tags.js';
import { schedulerFor } from '../../src/server/request/samplers.js';

/** Owners in the order in which their jobs are drawn, jobs being added when the order reaches them. */
const order = (jobs: { owner: string; place: number }[]) =>
  [...jobs].sort((a, b) => a.place - b.place).map(({ owner }) => owner);

describe('fairness', () => {
  test('owners take turns however many jobs one of them has', () => {
    const clock = new FairClock();
    const jobs = [...'aaaa', ...'bb', 'c'].map((owner) => ({ owner, place: clock.place(owner) }));
    expect(order(jobs).join('')).toBe('abcabaa');
  });

  test('nobody waits for ever behind one who always has a job waiting', () => {
    const clock = new FairClock();
    const patient = clock.place('patient');
    clock.place('patient');
    for (let drawn = 0; ; drawn++) {
      const place = clock.place('busy');
      if (place > patient) {
        expect(drawn).toBeLessThan(3);
        break;
      }
      clock.begin(place);
    }
  });

  test('high comes before normal, and takes its share of turns, not all', () => {
    const clock = new FairClock();
    const normal = clock.place('a');
    expect(clock.place('b', 'high')).toBeLessThan(normal);
    const many = Array.from({ length: 10 }, () => clock.place('b', 'high'));
    expect(many.filter((place) => place <= normal)).toHaveLength(COSTS.normal / COSTS.high - 1);
    expect(clock.place('c', 'low')).toBeGreaterThan(normal);
  });

  test('places stay within what BullMQ holds', () => {
    const clock = new FairClock();
    clock.begin(LAST_PLACE - 1);
    expect(clock.place('a')).toBe(LAST_PLACE);
  });
});

test('previews are evenly spaced and never after the last step', () => {
  expect(previewSteps(3, 20)).toEqual([5, 10, 15]);
  expect(previewSteps(0, 20)).toEqual([]);
  expect(previewSteps(100, 4)).toEqual([1, 2, 3]);
  expect(previewSteps(3, 1)).toEqual([]);
});

test("samplers by the web UI's names, of all times", () => {
  const base = createScheduler('euler');
  expect(schedulerFor({ sampler: 'DPM++ 2M', scheduler: 'Karras' }, base).config).toMatchObject({
    use_karras_sigmas: true,
  });
  expect(schedulerFor({ sampler: 'DPM++ 2M Karras' }, base).className).toBe('DPMSolverMultistepScheduler');
  expect(schedulerFor({ sampler: 'Euler a' }, base).className).toBe('EulerAncestralDiscreteScheduler');
  expect(schedulerFor({ scheduler: 'SGM Uniform' }, base).config).toMatchObject({ timestep_spacing: 'trailing' });
  expect(() => schedulerFor({ sampler: 'DDIM', scheduler: 'karras' }, base)).toThrow("no scheduler 'karras'");
  expect(() => schedulerFor({ sampler: 'Eulr' }, base)).toThrow("did you mean 'Euler'");
});

test('LoRA tags are taken out of prompts in the web UI syntax only', () => {
  const prompt = 'a cat <lora:ink:0.8> <lora:old style:-1:2> on a mat';
  expect(takeLoraTags({ prompt, prompt_syntax: 'a1111' })).toEqual({
    prompt: 'a cat   on a mat',
    prompt_syntax: 'a1111',
    lora: [
      { name: 'ink', weight: 0.8 },
      { name: 'old style', weight: -1 },
    ],
  });
  expect(takeLoraTags({ prompt }).prompt).toBe(prompt);
});
