// The same UNet step without and with USE_MEMORY_EFFICIENT_ATTENTION, each in a process of its own.
//
//   npm run bench -- with-and-without [--model sd15|DIR] [--size 512] [--batch 1] [--dtype float32] [--backend auto]
//                                     [--rounds 3] [--out benchmarks/results/with_and_without]
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs-core';
import { attentionStatistics, freeMemory } from '../dist/index.js';
import { environment, formatSummary, saveJson, summary } from './support.mjs';
import { gigabytes, startUnet, UNET_OPTIONS } from './unet.mjs';

const VARIABLE = 'USE_MEMORY_EFFICIENT_ATTENTION';

const { values } = parseArgs({
  options: {
    ...UNET_OPTIONS,
    batch: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '3' },
    out: { type: 'string', default: 'benchmarks/results/with_and_without' },
    child: { type: 'boolean', default: false },
  },
});

async function measureHere() {
  const { unet, pixels, call } = await startUnet(values, freeMemory);
  const batch = 2 * Number(values.batch);
  await call(batch);
  const results = [];
  for (let round = 0; round < Number(values.rounds); round++) {
    results.push(await call(batch));
  }
  const layers = unet.transformerBlocks.flatMap(({ attn1, attn2 }) => [attn1, attn2]);
  return {
    pixels,
    backend: tf.getBackend(),
    classes: Object.keys(attentionStatistics(layers)),
    time: summary(results.map(({ seconds }) => seconds)),
    peakBytes: Math.max(...results.map(({ peakBytes }) => peakBytes)),
  };
}

function measureInChild(value) {
  const args = [fileURLToPath(import.meta.url), ...process.argv.slice(2), '--child'];
  const env = { ...process.env, [VARIABLE]: value };
  const output = execFileSync(process.execPath, args, { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  return { variable: `${VARIABLE}=${value}`, ...JSON.parse(output.trim().split('\n').at(-1)) };
}

if (values.child) {
  console.log(JSON.stringify(await measureHere()));
} else {
  const rows = ['0', '1'].map(measureInChild);
  const machine = environment();
  const [{ pixels, backend }] = rows;
  const subject = `${values.model}, ${values.batch} x ${pixels} x ${pixels} with guidance, ${values.dtype}, ${backend}; ${JSON.stringify(machine)}`;
  const lines = rows.map(
    ({ variable, time, peakBytes, classes }) =>
      `${variable}  ${formatSummary(time)}  ${gigabytes(peakBytes)} above the weights  (${classes.join(', ')})`,
  );
  console.log([subject, ...lines].join('\n'));
  mkdirSync(dirname(values.out), { recursive: true });
  saveJson(`${values.out}.json`, { subject, environment: machine, rows });
  writeFileSync(`${values.out}.md`, `${[subject, '', ...lines.map((line) => `    ${line}`)].join('\n')}\n`);
}
