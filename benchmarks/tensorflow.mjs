// tfjs-node with and without the ops of this library, and onednn: peak memory of one self-attention over tokens, and seconds of a
// UNet step of Stable Diffusion 1.5. Each measurement runs in a process of its own, in turns.
//
//   NODE_PATH=<project>/node_modules npm run bench -- tensorflow [--tokens 1024,4096,16384] [--rounds 3] [--size 64] [--save FILE]
//
// `npm run test:tensorflow` leaves such a project in build/tensorflow. TFJS_DIFFUSERS_NATIVE=0 is what takes the ops away.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs-core';
import { KeyValueCache, memoryEfficientAttention, pickBackend, UNet2DConditionModel } from '../dist/index.js';
import { environment, formatSummary, saveJson, summary, time } from './support.mjs';

const { values } = parseArgs({
  options: {
    tokens: { type: 'string', default: '1024,4096,16384' },
    rounds: { type: 'string', default: '3' },
    size: { type: 'string', default: '64' },
    save: { type: 'string' },
    child: { type: 'string' },
  },
});
const HEAD = 40;
const SETTINGS = [
  { name: 'tensorflow, our op', backend: 'tensorflow', env: { TFJS_DIFFUSERS_NATIVE: '1' } },
  { name: 'tensorflow, composed', backend: 'tensorflow', env: { TFJS_DIFFUSERS_NATIVE: '0' } },
  { name: 'onednn', backend: 'onednn', env: { TFJS_DIFFUSERS_NATIVE: '1' } },
];

/** softmax(q k^T) v with the whole matrix, as tfjs users write it. */
const classic = (q, k, v) => tf.tidy(() => tf.matMul(tf.softmax(tf.matMul(q, k, false, true)), v));

/** Mebibytes of resident memory that one call of `f` adds to what a small call of it has needed. */
async function attentionPeak(f, tokens) {
  const at = async (n) => {
    const inputs = [1, 2, 3].map((seed) => tf.randomNormal([1, 1, n, HEAD], 0, 1, 'float32', seed));
    await Promise.all(inputs.map((x) => x.data()));
    const before = process.resourceUsage().maxRSS;
    const y = f(...inputs);
    await y.data();
    tf.dispose([...inputs, y]);
    return (process.resourceUsage().maxRSS - before) / 1024;
  };
  await at(64);
  return at(tokens);
}

async function unetSeconds(size) {
  const unet = UNet2DConditionModel.fromConfig({ sample_size: 64, cross_attention_dim: 768 }, { init: 'random' });
  const [sample, text] = [tf.randomNormal([2, size, size, 4]), tf.randomNormal([2, 77, 768])];
  const cache = new KeyValueCache();
  return time(
    async () => {
      const out = unet.forward(sample, 500, text, { cache });
      await out.data();
      out.dispose();
    },
    { runs: 1, warmups: 1 },
  );
}

if (values.child) {
  const { backend, work, tokens, size } = JSON.parse(values.child);
  tf.env().set('PROD', true);
  await pickBackend(backend);
  const result =
    work === 'unet'
      ? await unetSeconds(size)
      : await attentionPeak(work === 'classic' ? classic : memoryEfficientAttention, tokens);
  console.log(`result ${JSON.stringify(result)}`);
  process.exit(0);
}

function inProcess({ backend, env }, work, more) {
  const child = JSON.stringify({ backend, work, ...more });
  const out = execFileSync(process.execPath, [fileURLToPath(import.meta.url), '--child', child], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, ...env, TF_CPP_MIN_LOG_LEVEL: '3' },
  });
  return JSON.parse(/^result (.*)$/m.exec(out)[1]);
}

console.log(JSON.stringify(environment()));
console.log(`\nPeak memory of one head of ${HEAD}, MiB above a small call's\n`);
const memory = values.tokens
  .split(',')
  .map(Number)
  .map((tokens) => ({
    tokens,
    op: inProcess(SETTINGS[0], 'op', { tokens }),
    composed: inProcess(SETTINGS[1], 'op', { tokens }),
    classic: inProcess(SETTINGS[1], 'classic', { tokens }),
  }));
console.log('| N | our op | composed in blocks | softmax(q k^T) v |\n|---|---|---|---|');
for (const { tokens, op, composed, classic: whole } of memory) {
  console.log(`| ${tokens} | ${op.toFixed(1)} | ${composed.toFixed(1)} | ${whole.toFixed(1)} |`);
}

const size = Number(values.size);
const seconds = SETTINGS.map(() => []);
for (let round = 0; round < Number(values.rounds); round++) {
  for (const [i, setting] of SETTINGS.entries()) {
    seconds[i].push(...inProcess(setting, 'unet', { size }));
  }
}
const unet = SETTINGS.map(({ name }, i) => ({ name, ...summary(seconds[i]) }));
console.log(`\nUNet of Stable Diffusion 1.5, batch 2, ${size * 8} x ${size * 8}, float32\n`);
for (const { name, ...times } of unet) {
  console.log(`${name.padEnd(22)} ${formatSummary(times)}`);
}
if (values.save) {
  saveJson(values.save, { environment: environment(), memory, unet });
}
