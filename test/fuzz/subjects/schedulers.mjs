// Scheduler configurations as files and programs give them, then a few steps.
import * as tf from '@tensorflow/tfjs-core';
import { createScheduler, pickBackend, schedulerFromConfig, schedulerNames } from '../../../dist/index.js';

const NAMES = schedulerNames().classNames;

export async function setUp() {
  await pickBackend('cpu');
}

function create(random) {
  const name = random.of(NAMES);
  const damaged = random.damageJson(createScheduler(name).config);
  if (random.chance(0.5)) {
    return schedulerFromConfig({ ...damaged, _class_name: name });
  }
  const base = random.of(NAMES);
  return createScheduler(
    name,
    createScheduler(base).config,
    Object.fromEntries(Object.entries(damaged).slice(0, random.integer(0, 4))),
  );
}

export function trial(random) {
  const scheduler = create(random);
  try {
    scheduler.setTimesteps(random.chance(0.8) ? random.integer(1, 12) : random.value());
    tf.tidy(() => walk(scheduler, random));
  } finally {
    scheduler.dispose();
  }
}

function walk(scheduler, random) {
  let sample = tf.fill([1, 2, 2, 4], 0.5);
  for (const timestep of Array.from(scheduler.timesteps).slice(0, 4)) {
    const output = tf.mul(scheduler.scaleModelInput(sample, timestep), 0.1);
    sample = scheduler.step(
      output,
      timestep,
      sample,
      random.chance(0.1) ? random.damageJson({ eta: 0, generator: null }) : {},
    ).prevSample;
  }
}
