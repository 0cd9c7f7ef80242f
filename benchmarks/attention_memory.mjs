// Peak bytes of one self-attention layer, classic against memory-efficient: N squared against N.
//
//   npm run bench -- attention-memory [--tokens 1024,4096,16384] [--heads 1] [--dim 40] [--backend auto]
//                                     [--names classic,memory-efficient] [--save FILE]
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs-core';
import { measurePeak } from '../dist/backends/peak_memory.js';
import { AttentionProjections, createAttention, pickBackend } from '../dist/index.js';
import { initRandom, Weights } from '../dist/nn/index.js';
import { environment, saveJson } from './support.mjs';

const string = (value) => ({ type: 'string', default: value });
const { values } = parseArgs({
  options: {
    tokens: string('1024,4096,16384'),
    heads: string('1'),
    dim: string('40'),
    backend: string('auto'),
    names: string('classic,memory-efficient'),
    save: string(),
  },
});
const [heads, dimHead] = [Number(values.heads), Number(values.dim)];
const names = values.names.split(',');
const sizes = values.tokens.split(',').map(Number);

tf.env().set('PROD', true);
const backend = await pickBackend(values.backend);
const weights = Weights.root();
const projections = new AttentionProjections(weights.at('attn'), { queryDim: heads * dimHead, heads, dimHead });
initRandom(weights.parameters, 0);

/** Peak bytes and seconds of one layer's forward pass, beyond its weights and its input. */
async function measure(name, tokens) {
  const attention = createAttention(name, projections);
  const x = tf.randomNormal([1, tokens, heads * dimHead], 0, 1, 'float32', 1);
  await x.data();
  const begin = performance.now();
  try {
    const { value, peakBytes } = await measurePeak(async () => {
      const y = attention.forward(x);
      await y.data();
      return y;
    });
    value.dispose();
    return { name, tokens, peakBytes, seconds: (performance.now() - begin) / 1000 };
  } catch (error) {
    return { name, tokens, error: error.message };
  } finally {
    x.dispose();
  }
}

const rows = [];
for (const tokens of sizes) {
  for (const name of names) {
    rows.push(await measure(name, tokens));
  }
}

const cell = ({ peakBytes, seconds, error }) =>
  error ? `fails: ${error}` : `${(peakBytes / 2 ** 20).toFixed(1)} MiB, ${seconds.toFixed(2)} s`;
const at = (name, tokens) => rows.find((row) => row.name === name && row.tokens === tokens);
console.log(
  `batch 1, ${heads} head${heads > 1 ? 's' : ''} of ${dimHead}, float32, ${backend}; ${JSON.stringify(environment())}\n`,
);
console.log(`| N | ${names.join(' | ')} |\n|---|${names.map(() => '---').join('|')}|`);
for (const tokens of sizes) {
  console.log(`| ${tokens} | ${names.map((name) => cell(at(name, tokens))).join(' | ')} |`);
}
console.log();
for (const name of names) {
  const [first, last] = [at(name, sizes[0]), at(name, sizes.at(-1))];
  if (first.peakBytes && last.peakBytes && sizes.length > 1) {
    const power = Math.log(last.peakBytes / first.peakBytes) / Math.log(last.tokens / first.tokens);
    console.log(`${name}: memory grows with N to the power of ${power.toFixed(2)}`);
  }
}
if (values.save) {
  saveJson(values.save, { environment: environment(), backend, heads, dimHead, rows });
}
