import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from '@jest/globals';
import { nativeTest } from '../support/native.js';

const PROCESSES = 20;
const LIBRARY = pathToFileURL(resolve('dist/index.js')).href;

/** Only the worker loads the native engine; it draws two steps and ends, and the process goes on for a moment. */
const PROGRAM = `
  const { Worker } = require('node:worker_threads');
  const draw = \`
    import('${LIBRARY}').then(async ({ StableDiffusionPipeline, TINY_SHAPES }) => {
      const pipe = await StableDiffusionPipeline.fromPretrained(TINY_SHAPES, { backend: 'onednn' });
      const { images } = await pipe('a star', { seed: 0, numInferenceSteps: 2 });
      pipe.dispose();
      require('node:worker_threads').parentPort.postMessage(images[0].width);
    });\`;
  const worker = new Worker(draw, { eval: true });
  worker.on('message', (width) => console.log(width));
  worker.on('exit', (code) => setTimeout(() => process.exit(code), 100));
`;

function run(): Promise<{ code: number | null; signal: string | null; stdout: string }> {
  const child = spawn(process.execPath, ['-e', PROGRAM], { stdio: ['ignore', 'pipe', 'inherit'] });
  let stdout = '';
  child.stdout.on('data', (text) => {
    stdout += text;
  });
  return new Promise((done) => child.on('close', (code, signal) => done({ code, signal, stdout })));
}

nativeTest('a process survives the end of the worker that loaded the native engine', async () => {
  for (let i = 0; i < PROCESSES; i++) {
    expect(await run()).toEqual({ code: 0, signal: null, stdout: '64\n' });
  }
});
