// Options of a call, most of them wrong; those that are right draw two steps of a small picture.
import * as tf from '@tensorflow/tfjs-core';
import { StableDiffusionPipeline } from '../../../dist/index.js';

export async function setUp() {
  return { pipe: await StableDiffusionPipeline.fromPretrained('weights/tiny-shapes') };
}

const GOOD = {
  negativePrompt: 'a heart',
  height: 16,
  width: 16,
  numInferenceSteps: 2,
  guidanceScale: 7.5,
  guidanceRescale: 0.2,
  eta: 0,
  seed: 1,
  numImagesPerPrompt: 1,
  clipSkip: 1,
  promptSyntax: 'a1111',
  outputType: 'tensor',
  negativeGuidanceMinSigma: 0.5,
  skipEarlyCond: 0.1,
};
const NAMES = [
  ...Object.keys(GOOD),
  'timesteps',
  'sigmas',
  'latents',
  'promptEmbeds',
  'negativePromptEmbeds',
  'generator',
  'signal',
  'callbackOnStepEnd',
  'onProgress',
  'numInferenceStep',
  '__proto__',
];
/** Sizes and counts that are right but cost much. */
const bounded = (name, value) =>
  ['height', 'width', 'numInferenceSteps', 'numImagesPerPrompt'].includes(name) && value > 64 && value < 1e6
    ? 16
    : value;

export async function trial(random, { pipe }) {
  const options = { numInferenceSteps: 2, height: 16, width: 16, outputType: 'tensor' };
  for (let i = random.integer(0, 3); i > 0; i--) {
    const name = random.of(NAMES);
    options[name] = random.chance(0.4) && name in GOOD ? GOOD[name] : bounded(name, random.value());
  }
  const prompt = random.chance(0.8) ? random.text(random.integer(0, 20)) : random.value();
  const { images } = await pipe(prompt, random.chance(0.97) ? options : random.value());
  tf.dispose(Array.isArray(images) ? [] : images);
}
