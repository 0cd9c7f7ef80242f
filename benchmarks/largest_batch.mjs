// The largest batch whose UNet step stays below a memory limit, for two attention classes.
//
//   npm run bench -- largest-batch [--limit 3072] [--model sd15|DIR] [--size 512] [--dtype float32] [--backend auto]
//                                  [--classes classic,memory-efficient] [--most 64] [--out benchmarks/results/largest_batch]
//
// The limit is in MB above the weights. Native backends enforce it; on others a step counts as fitting when its measured
// peak is below it.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs-core';
import { supportsPhysicalTypes } from '../dist/backends/types.js';
import { freeMemory, OutOfMemoryError } from '../dist/index.js';
import { environment, saveJson } from './support.mjs';
import { gigabytes, startUnet, UNET_OPTIONS } from './unet.mjs';

const { values } = parseArgs({
  options: {
    ...UNET_OPTIONS,
    limit: { type: 'string', default: '3072' },
    classes: { type: 'string', default: 'classic,memory-efficient' },
    most: { type: 'string', default: '64' },
    out: { type: 'string', default: 'benchmarks/results/largest_batch' },
  },
});
const limit = Number(values.limit) * 2 ** 20;
const { unet, pixels, call } = await startUnet(values, freeMemory);
const backend = tf.backend();

// weights are packed by the first call, and belong to what the limit comes on top of
unet.setAttention('memory-efficient');
await call(1);
if (supportsPhysicalTypes(backend)) {
  backend.setMemoryLimit(backend.memoryInfo().bytesInUse + limit);
}

/** The measured step, or null when it does not fit. */
async function attempt(batch) {
  try {
    const result = await call(batch);
    return result.peakBytes <= limit ? result : null;
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    return null;
  }
}

/** Guesses from the memory of one picture, then closes in on the first batch that fails. */
async function largest(name) {
  unet.setAttention(name);
  let [fits, fails, best] = [0, Number(values.most) + 1, null];
  let batch = 1;
  while (fails - fits > 1) {
    const result = await attempt(batch);
    console.log(`${name}, batch ${batch}: ${result ? gigabytes(result.peakBytes) : 'does not fit'}`);
    if (result) {
      [fits, best] = [batch, result];
    } else {
      fails = batch;
    }
    const guess = best ? Math.floor(limit / (best.peakBytes / fits)) : 1;
    batch = Math.min(Math.max(guess, fits + 1), fails - 1);
  }
  return { name, batch: fits, ...best };
}

const rows = [];
for (const name of values.classes.split(',')) {
  rows.push(await largest(name));
}
const machine = environment();
const subject =
  `${values.model}, ${pixels} x ${pixels}, ${values.dtype}, ${gigabytes(limit)} above the weights, ` +
  `${tf.getBackend()}; ${JSON.stringify(machine)}`;
const lines = rows.map(({ name, batch, seconds, peakBytes }) =>
  batch > 0
    ? `${name}: batch ${batch}, ${gigabytes(peakBytes)}, ${(seconds / batch).toPrecision(3)} s per picture and step`
    : `${name}: not even a batch of 1 fits`,
);
if (rows.length === 2 && rows[0].batch > 0) {
  lines.push(`${(rows[1].batch / rows[0].batch).toPrecision(3)} times as many`);
}
console.log([subject, ...lines].join('\n'));
mkdirSync(dirname(values.out), { recursive: true });
saveJson(`${values.out}.json`, { subject, environment: machine, limit, rows });
writeFileSync(`${values.out}.md`, `${[subject, '', ...lines.map((line) => `- ${line}`)].join('\n')}\n`);
