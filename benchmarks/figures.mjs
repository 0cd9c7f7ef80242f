// The figures of README and docs, from the numbers in benchmarks/results.
//
//   npm run bench -- figures
import { readFileSync } from 'node:fs';
import { bars, COLORS, saveChart } from './plot.mjs';

const result = (name) => JSON.parse(readFileSync(`benchmarks/results/${name}.json`, 'utf8'));
const about = ({ date, commit, processor }) => `${processor} (Zen 4), commit ${commit}, ${date}`;

/** Peak memory of one layer over the number of tokens, both axes logarithmic. */
async function attentionMemory() {
  const { environment, rows, dimHead, backend } = result('attention_memory_zen4');
  const values = rows.map(({ name, tokens, peakBytes }) => ({ name, tokens, MiB: peakBytes / 2 ** 20 }));
  const log = (field, title, ticks) => ({
    field,
    type: 'quantitative',
    scale: { type: 'log' },
    title,
    axis: { grid: true, values: ticks },
  });
  await saveChart('docs/figures/attention_memory.svg', {
    title: {
      text: 'Memory of one attention layer beyond weights and input',
      subtitle: [`batch 1, one head of ${dimHead}, float32, ${backend}`, about(environment)],
    },
    width: 520,
    height: 280,
    data: { values },
    mark: { type: 'line', point: { size: 60 }, strokeWidth: 2.5 },
    encoding: {
      x: log('tokens', 'tokens', [256, 1024, 4096, 16384]),
      y: log('MiB', 'MiB', [1, 10, 100, 1000]),
      color: {
        field: 'name',
        scale: { domain: ['classic', 'memory-efficient'], range: [COLORS.other, COLORS.ours] },
      },
    },
  });
}

const WORK = { unet: 'UNet step, 512 x 512', vae: 'VAE decoder, 512 x 512' };

/** How many times as fast as PyTorch, one bar for each piece of work and type. */
async function speed() {
  const { machine, results } = result('sd15_onednn_zen4');
  const rows = results.map(({ work, dtype, speedup }) => ({
    label: `${WORK[work] ?? work.replace('attention-backward', 'gradient')}, ${dtype}`,
    value: speedup,
    text: `${speedup.toFixed(2)} x`,
  }));
  await saveChart('docs/figures/speed.svg', {
    ...bars({ rows, color: COLORS.ours }),
    title: {
      text: 'Times as fast as PyTorch 2.13 on the same CPU',
      subtitle: ["the fastest of PyTorch's attention settings; two cores", about(machine)],
    },
  });
}

await attentionMemory();
await speed();
console.log('wrote docs/figures/attention_memory.svg and speed.svg');
