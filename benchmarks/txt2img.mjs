// Seconds of each stage of text to picture, medians over several pictures in one process, and the memory that they take.
//
//   npm run bench -- txt2img [--model DIR] [--steps 20] [--width W] [--height H] [--batch 1] [--guidance 7.5]
//                            [--backend auto] [--dtype float32] [--attention auto] [--runs 5] [--save FILE]
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs-core';
import { measurePeak } from '../dist/backends/peak_memory.js';
import { StableDiffusionPipeline } from '../dist/index.js';
import { environment, formatSummary, residentMemory, saveJson, summary } from './support.mjs';

const string = (value) => ({ type: 'string', default: value });
const { values } = parseArgs({
  options: {
    model: string(join(fileURLToPath(new URL('..', import.meta.url)), 'weights', 'tiny-shapes')),
    prompt: string('a large yellow star on a purple background'),
    steps: string('20'),
    width: string(),
    height: string(),
    batch: string('1'),
    guidance: string('7.5'),
    backend: string('auto'),
    dtype: string('float32'),
    attention: string(),
    runs: string('5'),
    save: string(),
  },
});
const number = (text) => (text === undefined ? undefined : Number(text));
const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

tf.env().set('PROD', true);
const begin = performance.now();
const { model, backend, dtype, attention } = values;
const pipe = await StableDiffusionPipeline.fromPretrained(model, { backend, dtype, attention });
const load = (performance.now() - begin) / 1000;

async function draw(seed) {
  const { value, peakBytes } = await measurePeak(() =>
    pipe(values.prompt, {
      seed,
      numInferenceSteps: Number(values.steps),
      guidanceScale: Number(values.guidance),
      numImagesPerPrompt: Number(values.batch),
      width: number(values.width),
      height: number(values.height),
    }),
  );
  const encodeBegin = performance.now();
  await Promise.all(value.images.map((image) => image.toBuffer('png')));
  return { ...value.timings, png: (performance.now() - encodeBegin) / 1000, peakBytes, image: value.images[0] };
}

const first = await draw(0);
const runs = [];
for (let seed = 1; seed <= Number(values.runs); seed++) {
  runs.push(await draw(seed));
}

const { width, height } = first.image;
const stages = Object.fromEntries(
  ['encode', 'denoise', 'decode', 'png', 'total'].map((stage) => [stage, summary(runs.map((run) => run[stage]))]),
);
stages.step = summary(runs.flatMap((run) => run.steps));
const result = {
  environment: environment(),
  model: pipe.modelName,
  backend: tf.getBackend(),
  dtype,
  attention: attention ?? 'auto',
  width,
  height,
  batch: Number(values.batch),
  steps: Number(values.steps),
  load,
  first: first.total,
  stages,
  peakBytesAboveWeights: Math.max(...runs.map((run) => run.peakBytes)),
  peakProcessBytes: residentMemory().peak,
};

console.log(
  `${result.model}, ${width} x ${height}, batch ${result.batch}, ${result.steps} steps, guidance ${values.guidance}`,
);
console.log(`${result.backend}, ${dtype}, attention ${result.attention}; ${JSON.stringify(result.environment)}`);
console.log(`load     ${load.toPrecision(4)} s`);
console.log(`first    ${first.total.toPrecision(4)} s, the first picture, all stages`);
for (const [stage, numbers] of Object.entries(stages)) {
  console.log(`${stage.padEnd(8)} ${formatSummary(numbers)}`);
}
console.log(
  `memory   ${megabytes(result.peakBytesAboveWeights)} above the weights, ${megabytes(result.peakProcessBytes)} the process`,
);
if (values.save) {
  saveJson(values.save, result);
}
