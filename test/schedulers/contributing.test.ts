import '@tensorflow/tfjs-backend-cpu';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import type { SchedulerClass, SchedulerMixin } from '../../src/schedulers/index.js';
import { DDIMScheduler } from '../../src/schedulers/index.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { fakeDenoiser } from '../support/scheduler_case.js';

const FILE = 'scheduling_plain_ddim';
let dir: string;

/** The example of CONTRIBUTING.md as a file, whose imports lead to src/ as those of its place there do. */
beforeAll(async () => {
  tf.env().set('IS_TEST', true);
  await tf.setBackend('cpu');
  const [, chapter] = readFileSync('CONTRIBUTING.md', 'utf8').split('## A scheduler');
  const [, code] = /```ts\n([\s\S]*?)```/.exec(chapter!)!;
  const src = resolve('src');
  const placed = code!.replaceAll("'../", `'${src}/`).replaceAll("'./", `'${src}/schedulers/`);
  mkdirSync('build', { recursive: true });
  dir = mkdtempSync(join('build', 'example-'));
  writeFileSync(join(dir, `${FILE}.ts`), placed.replaceAll(/(from '\/.*)\.js'/g, "$1.ts'"));
});

afterAll(() => {
  rmSync(dir, { recursive: true });
});

test("CONTRIBUTING's scheduler works and draws what DDIM draws", async () => {
  const { PlainDDIMScheduler } = (await import(resolve(dir, `${FILE}.ts`))) as { PlainDDIMScheduler: SchedulerClass };
  const config = { beta_schedule: 'scaled_linear', clip_sample: false, set_alpha_to_one: false };
  const draw = (scheduler: SchedulerMixin): Float32Array => {
    scheduler.setTimesteps(7);
    const start = tf.tensor(new TorchGenerator(1).randn(64), [1, 4, 4, 4]) as tf.Tensor;
    const step = (x: tf.Tensor, t: number) => scheduler.step(fakeDenoiser(x, t), t, x).prevSample;
    return tf.tidy(() => scheduler.timesteps.reduce(step, start).dataSync() as Float32Array);
  };
  expect(draw(PlainDDIMScheduler.fromConfig(config))).toEqual(draw(DDIMScheduler.fromConfig(config)));
  expect(() => PlainDDIMScheduler.fromConfig({}, { setAlphaToOn: true })).toThrow(/did you mean 'set_alpha_to_one'/);
});

test("CONTRIBUTING's scheduler has no errors of types", () => {
  const options = ['--noEmit', '--strict', '--skipLibCheck', '--noUnusedLocals', '--allowImportingTsExtensions'];
  const modules = ['--target', 'es2023', '--module', 'nodenext', '--moduleResolution', 'nodenext'];
  const tsc = resolve('node_modules/typescript/bin/tsc');
  const args = [tsc, ...options, ...modules, '--ignoreConfig', join(dir, `${FILE}.ts`)];
  try {
    execFileSync(process.execPath, args, { encoding: 'utf8' });
  } catch (error) {
    throw new Error((error as { stdout: string }).stdout);
  }
});
