// Time and peak memory of every attention class, of token merging and of a negative guidance minimum sigma, in one UNet.
//
//   npm run bench -- attention [--model sd15|DIR] [--size 512] [--batch 1] [--dtype float32] [--backend auto] [--rounds 3]
//                              [--classes classic,sdp] [--only classes,merging,sigma] [--free MB] [--steps 10]
//                              [--out benchmarks/results/attention]
//
// The batch is of pictures; with guidance the UNet gets twice as many. --free tells the classes that ask how much memory is
// free (doggettx, sub-quadratic, sdp) that it is so much. Results go to OUT.json, OUT.md and OUT.svg.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs-core';
import {
  applyTokenMerging,
  attentionStatistics,
  Conditioning,
  denoisingLoop,
  EulerDiscreteScheduler,
  freeMemory,
  GuidedDenoiser,
  OutOfMemoryError,
  removeTokenMerging,
  runLoop,
  TorchGenerator,
} from '../dist/index.js';
import { bars, COLORS, saveChart } from './plot.mjs';
import { environment, saveJson, summary } from './support.mjs';
import { gigabytes, startUnet, UNET_OPTIONS } from './unet.mjs';

/** Seconds and GB of the same classes on an RTX 4090, as published for AUTOMATIC1111's web UI, to compare the order with. */
const RTX_4090 = {
  classic: '35.1 s, 23.1 GB',
  sliced: '',
  'split-v1': '21.5 s, 3.6 GB',
  doggettx: '14.4 s, 14.9 GB',
  invokeai: '14.4 s, 14.9 GB',
  'sub-quadratic': '18.8 s, 5.9 GB',
  'memory-efficient': '12.8 s, 3.5 GB (xFormers)',
  sdp: '10.5 s, 3.5 GB',
  'sdp-no-mem': '10.6 s, 3.5 GB',
  auto: '',
};
const RATIOS = [0, 0.3, 0.5, 0.7];
const SIGMAS = [0, 0.3, 0.5, 0.7];

const { values } = parseArgs({
  options: {
    ...UNET_OPTIONS,
    batch: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '3' },
    classes: { type: 'string', default: Object.keys(RTX_4090).join(',') },
    only: { type: 'string', default: 'classes,merging,sigma' },
    free: { type: 'string' },
    steps: { type: 'string', default: '10' },
    out: { type: 'string', default: 'benchmarks/results/attention' },
  },
});
const [batch, rounds, steps] = [values.batch, values.rounds, values.steps].map(Number);
const parts = values.only.split(',');
const { unet, pixels, call } = await startUnet(values, freeMemory);
const machine = environment();
const subject =
  `${values.model}, ${batch} picture${batch > 1 ? 's' : ''} of ${pixels} x ${pixels} with guidance, ${values.dtype}, ` +
  `backend ${tf.getBackend()}; ${machine.processor}, ${machine.memoryGB} GB; commit ${machine.commit}, ${machine.date}`;
console.log(subject);

const injected = values.free ? { freeMemory: () => Number(values.free) * 2 ** 20 } : {};
const asksForMemory = new Set(['doggettx', 'sub-quadratic', 'sdp', 'auto']);

/** Runs the rounds in turns, so that a slow minute of the machine meets all of them. */
async function inTurns(variants) {
  const results = variants.map(({ name }) => ({ name, seconds: [], peakBytes: 0 }));
  for (let round = -1; round < rounds; round++) {
    for (const [i, { prepare, run }] of variants.entries()) {
      const result = results[i];
      if (result.error) continue;
      try {
        prepare();
        const { seconds, peakBytes, taken } = await run();
        // the first round compiles and packs
        if (round >= 0) {
          result.seconds.push(seconds);
          result.peakBytes = Math.max(result.peakBytes, peakBytes);
          result.taken = taken;
        }
      } catch (error) {
        if (!(error instanceof OutOfMemoryError)) throw error;
        result.error = error.message;
      }
    }
  }
  return results.map(({ seconds, ...rest }) => (rest.error ? rest : { ...rest, time: summary(seconds) }));
}

const layers = () => unet.transformerBlocks.flatMap(({ attn1, attn2 }) => [attn1, attn2]);
const step = async () => ({
  ...(await call(2 * batch)),
  taken: Object.keys(attentionStatistics(layers())).join(' and '),
});

const classVariants = values.classes.split(',').map((name) => ({
  name,
  prepare: () => unet.setAttention({ name, ...(asksForMemory.has(name) ? injected : {}) }),
  run: step,
}));

const mergingVariants = RATIOS.map((ratio) => ({
  name: `ratio ${ratio}`,
  prepare: () => {
    unet.setAttention('auto');
    removeTokenMerging(unet);
    applyTokenMerging(unet, { ratio });
  },
  run: step,
}));

/** A picture's whole denoising loop, which is where a sigma can leave the unconditional half out. */
async function sigmaVariants() {
  const scheduler = new EulerDiscreteScheduler({
    beta_schedule: 'scaled_linear',
    beta_start: 0.00085,
    beta_end: 0.012,
  });
  const { inChannels, crossAttentionDim } = unet.parsed;
  return SIGMAS.map((sigma) => ({
    name: `minimum sigma ${sigma}`,
    prepare: () => {
      removeTokenMerging(unet);
      unet.setAttention('auto');
    },
    run: async () => {
      scheduler.setTimesteps(steps);
      const latents = tf.mul(tf.randomNormal([batch, pixels / 8, pixels / 8, inChannels]), scheduler.initNoiseSigma);
      const text = () => ({ encoderHiddenStates: tf.randomNormal([batch, 77, crossAttentionDim[0]]) });
      const conditioning = new Conditioning({ unconditional: text(), conditional: text() });
      const denoiser = new GuidedDenoiser(
        (x, t, { encoderHiddenStates, cache }) => unet.predict(x, t, encoderHiddenStates, { cache }),
        conditioning,
        { guidanceScale: 7.5, negativeGuidanceMinSigma: sigma },
      );
      const loop = denoisingLoop({ scheduler, denoiser, latents, generator: new TorchGenerator(0) });
      const begin = performance.now();
      const result = await runLoop(loop);
      await result.data();
      result.dispose();
      conditioning.dispose();
      return { seconds: (performance.now() - begin) / 1000, peakBytes: 0 };
    },
  }));
}

const cell = ({ min, max, median, runs }) =>
  `${median.toPrecision(3)} s (${min.toPrecision(3)} - ${max.toPrecision(3)}, ${runs} runs)`;

const markdown = [`# Attention: what each class costs`, '', subject, ''];
const saved = { subject, environment: machine, backend: tf.getBackend(), options: { ...values, size: pixels } };

function table(title, head, rows) {
  const lines = [`## ${title}`, '', `| ${head.join(' | ')} |`, `|${head.map(() => '---').join('|')}|`];
  lines.push(...rows.map((row) => `| ${row.join(' | ')} |`), '');
  console.log(lines.join('\n'));
  markdown.push(...lines);
}

const charts = [];

if (parts.includes('classes')) {
  const rows = (saved.classes = await inTurns(classVariants));
  table(
    'One step of the UNet by attention class',
    ['class', 'time', 'peak memory above the weights', 'computed by', 'on an RTX 4090'],
    rows.map(({ name, time, peakBytes, taken, error }) =>
      error ? [name, error, '', '', RTX_4090[name]] : [name, cell(time), gigabytes(peakBytes), taken, RTX_4090[name]],
    ),
  );
  charts.push(...rows);
}
if (parts.includes('merging')) {
  const rows = (saved.merging = await inTurns(mergingVariants));
  table(
    'One step with token merging, attention auto',
    ['merged', 'time', 'peak memory above the weights'],
    rows.map(({ name, time, peakBytes, error }) => [name, error ?? cell(time), error ? '' : gigabytes(peakBytes)]),
  );
  charts.push(...rows.map((row) => ({ ...row, name: `token merging ${row.name.slice('ratio '.length)}` })));
}
if (parts.includes('sigma')) {
  const rows = (saved.sigma = await inTurns(await sigmaVariants()));
  table(
    `Denoising in ${steps} steps of Euler with a negative guidance minimum sigma, attention auto`,
    ['minimum sigma', 'time'],
    rows.map(({ name, time, error }) => [name.slice('minimum sigma '.length), error ?? cell(time)]),
  );
}

mkdirSync(dirname(values.out), { recursive: true });
saveJson(`${values.out}.json`, saved);
writeFileSync(`${values.out}.md`, `${markdown.join('\n')}`);
if (charts.length > 0) {
  const panel = (title, color, valueFor) =>
    bars({
      title,
      color,
      rows: charts.map(({ name, error, ...row }) => {
        const value = error ? null : valueFor(row);
        return { label: name, value, text: value === null ? 'does not fit' : value.toPrecision(3) };
      }),
    });
  await saveChart(`${values.out}.svg`, {
    title: { text: 'One step of the UNet by attention class', subtitle: subject },
    hconcat: [
      panel('seconds', COLORS.ours, ({ time }) => time.median),
      panel('peak memory above the weights, GiB', COLORS.other, ({ peakBytes }) => peakBytes / 2 ** 30),
    ],
  });
}
console.log(`saved ${values.out}.json, .md${charts.length > 0 ? ' and .svg' : ''}`);
