import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../backends/index.js';
import { InvalidArgumentError } from '../../errors.js';
import { readParameters } from '../../images/index.js';
import {
  applyRedrawing,
  LatentConsistencyModelPipeline,
  loadRedrawingAdapters,
  type Redrawing,
  redraw,
  StableDiffusionImg2ImgPipeline,
  StableDiffusionInpaintPipeline,
  StableDiffusionPipeline,
  withInputs,
} from '../../pipelines/index.js';
import { setWarningHandler } from '../../utils/logging.js';
import type { Interruption } from '../interruption.js';
import type { CommandValues } from '../options.js';
import { outputPaths } from '../output_paths.js';
import type { ProgressDisplay } from '../progress.js';
import { checkVae, loadVae } from '../vae.js';

const PIPELINES = Object.fromEntries(
  [
    StableDiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    LatentConsistencyModelPipeline,
  ].map((Pipeline) => [Pipeline.className, Pipeline]),
);

/** Draws the picture `--from` again: checkpoint `--model`, pictures `--image` and `--mask` that it began with, adapters. */
export async function redrawPicture(
  values: CommandValues,
  display: ProgressDisplay,
  { signal }: Interruption,
): Promise<void> {
  const redrawing = await readRedrawing(values);
  const prompt = [redrawing.prompt ?? 'picture'].flat()[0]!;
  const [path] = await outputPaths(values.out, prompt, 1);
  tf.env().set('PROD', true);
  setWarningHandler((message) => display.note(`warning: ${message}`));
  const pipe = await load(values, redrawing, display, signal);
  const onProgress = (progress: Parameters<typeof display.denoising>[0]) => display.denoising(progress);
  const { images, timings } = await pipe.run(redrawing.prompt, {
    ...redrawing.options,
    signal,
    onProgress,
  } as never);
  display.denoised(timings);
  await images[redrawing.index]!.save(path!);
  process.stdout.write(`${path}\n`);
}

/** @throws InvalidArgumentError for a file without settings, NotReproducibleError for what cannot be drawn again */
async function readRedrawing({ from, image, mask }: CommandValues): Promise<Redrawing> {
  const text = await readParameters(from!);
  if (text === undefined) {
    throw new InvalidArgumentError(`[--from] '${from}' carries no settings`);
  }
  const files = [image, mask].filter((file) => file !== undefined);
  return withInputs(redraw(text), files);
}

async function load(
  { model, vae, lora = [], embedding = [] }: CommandValues,
  redrawing: Redrawing,
  display: ProgressDisplay,
  signal: AbortSignal,
) {
  const Pipeline = PIPELINES[redrawing.pipeline];
  if (!Pipeline) {
    throw new InvalidArgumentError(`[--from] the pipeline ${redrawing.pipeline} is not known to the command line`);
  }
  const { dtype, backend } = redrawing;
  await pickBackend(backend as 'auto');
  const given = await loadVae(vae, model, { dtype });
  checkVae(given, redrawing);
  const pipe = await Pipeline.fromPretrained(model, {
    ...given,
    dtype,
    backend: backend as 'auto',
    signal,
    onProgress: (progress) => display.loading(progress),
  });
  if (redrawing.model !== undefined && redrawing.model !== pipe.modelName) {
    display.note(`warning: the picture was drawn with ${redrawing.model}, this is ${pipe.modelName}`);
  }
  await loadRedrawingAdapters(pipe, redrawing, {
    loras: lora.map(({ path }) => path),
    embeddings: embedding.map(({ path }) => path),
  });
  applyRedrawing(pipe, redrawing);
  return pipe;
}
