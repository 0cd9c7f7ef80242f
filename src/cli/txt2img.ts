import * as tf from '@tensorflow/tfjs-core';
import { applyTokenMerging, attentionStatistics, resolveAttention } from '../attention/index.js';
import type { BackendName, PhysicalType } from '../backends/index.js';
import { AbortedError } from '../errors.js';
import { type Output, randomSeed, StableDiffusionPipeline } from '../pipelines/index.js';
import type { PromptSyntax } from '../pipelines/stable_diffusion/encode_prompt.js';
import { createScheduler, findScheduler } from '../schedulers/index.js';
import { setWarningHandler } from '../utils/logging.js';
import { asUsage } from './exit.js';
import type { Interruption } from './interruption.js';
import { type MemoryReport, withMemoryReport } from './memory.js';
import { outputPaths } from './output_paths.js';
import { versions } from './package_info.js';
import { formatSeconds, type ProgressDisplay } from './progress.js';

/** The options of the command line, as commander gives them. */
export interface Txt2ImgOptions {
  model: string;
  negative?: string;
  steps: number;
  guidance: number;
  guidanceRescale: number;
  seed?: bigint;
  scheduler?: string;
  schedulerConfig?: Record<string, unknown>;
  width?: number;
  height?: number;
  batch: number;
  clipSkip?: number;
  eta: number;
  promptSyntax: PromptSyntax;
  attention?: string;
  tokenMerging?: number;
  negativeGuidanceMinSigma?: number;
  skipEarlyCond?: number;
  offload?: 'model' | 'sequential';
  vaeSlicing?: boolean;
  vaeTiling?: boolean;
  backend: 'auto' | BackendName;
  dtype: PhysicalType;
  variant?: string;
  revision?: string;
  out?: string;
  json?: boolean;
  quiet?: boolean;
}

const seconds = (since: number) => (performance.now() - since) / 1000;

/** Draws the pictures that the command line asks for and saves them. */
export async function txt2img(
  prompt: string,
  options: Txt2ImgOptions,
  display: ProgressDisplay,
  { signal }: Interruption,
): Promise<void> {
  const begin = performance.now();
  const { scheduler, attention } = options;
  await asUsage(() => {
    if (scheduler !== undefined) {
      findScheduler(scheduler);
    }
    resolveAttention(attention);
  });
  const paths = await outputPaths(options.out, prompt, options.batch);
  // tfjs-core gives advice about backends unless it believes to be in production
  tf.env().set('PROD', true);
  setWarningHandler((message) => display.note(`warning: ${message}`));

  const { pipe, download } = await load(options, display, signal);
  const loaded = seconds(begin);
  const seed = options.seed ?? BigInt(randomSeed());
  display.note(`seed ${seed}, ${tf.getBackend()} backend`);
  display.startDenoising(options.steps);
  const drawing = () => draw(pipe, prompt, seed, options, display, signal);
  const { value: output, memory } = options.json
    ? await withMemoryReport(drawing)
    : { value: await drawing(), memory: undefined };
  display.denoised(output.timings);

  const saveBegin = performance.now();
  for (const [i, image] of output.images.entries()) {
    if (signal.aborted) {
      throw new AbortedError('saving was stopped');
    }
    await image.save(paths[i]!);
  }
  const save = seconds(saveBegin);
  if (memory) {
    const timings = { download, load: loaded - download, ...output.timings, save, total: seconds(begin) };
    print(JSON.stringify(report(prompt, options, pipe, paths, output, timings, memory)));
  } else {
    print(paths.join('\n'));
  }
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

async function load(
  options: Txt2ImgOptions,
  display: ProgressDisplay,
  signal: AbortSignal,
): Promise<{ pipe: StableDiffusionPipeline; download: number }> {
  const begin = performance.now();
  const { backend, dtype, attention, variant, revision } = options;
  let download = 0;
  const pipe = await StableDiffusionPipeline.fromPretrained(options.model, {
    backend,
    dtype,
    attention,
    variant,
    revision,
    signal,
    onProgress: (progress) => {
      if (progress.stage === 'download') {
        download = seconds(begin);
      }
      display.loading(progress);
    },
  });
  display.note(`loaded ${pipe.modelName} in ${formatSeconds(seconds(begin))}`);
  const { scheduler, schedulerConfig } = options;
  if (scheduler !== undefined || schedulerConfig !== undefined) {
    const current = pipe.scheduler;
    pipe.scheduler = await asUsage(() =>
      createScheduler(scheduler ?? current.className, current.config, schedulerConfig),
    );
  }
  await economise(pipe, options);
  return { pipe, download };
}

/** What trades time or exactness for memory or speed. */
async function economise(pipe: StableDiffusionPipeline, options: Txt2ImgOptions): Promise<void> {
  if (options.tokenMerging) {
    applyTokenMerging(pipe, { ratio: options.tokenMerging });
  }
  if (options.vaeSlicing) {
    pipe.vae.enableSlicing();
  }
  if (options.vaeTiling) {
    pipe.vae.enableTiling();
  }
  if (options.offload === 'model') {
    await pipe.enableModelCpuOffload();
  } else if (options.offload === 'sequential') {
    await pipe.enableSequentialCpuOffload();
  }
}

function draw(
  pipe: StableDiffusionPipeline,
  prompt: string,
  seed: bigint,
  options: Txt2ImgOptions,
  display: ProgressDisplay,
  signal: AbortSignal,
): Promise<Output> {
  return asUsage(() =>
    pipe.run(prompt, {
      negativePrompt: options.negative,
      numInferenceSteps: options.steps,
      guidanceScale: options.guidance,
      guidanceRescale: options.guidanceRescale,
      numImagesPerPrompt: options.batch,
      seed,
      width: options.width,
      height: options.height,
      clipSkip: options.clipSkip,
      eta: options.eta,
      promptSyntax: options.promptSyntax,
      negativeGuidanceMinSigma: options.negativeGuidanceMinSigma,
      skipEarlyCond: options.skipEarlyCond,
      signal,
      onProgress: (progress) => display.denoising(progress),
    }),
  );
}

/** What --json prints: how the pictures were made, seconds by stage, bytes of memory. */
function report(
  prompt: string,
  options: Txt2ImgOptions,
  pipe: StableDiffusionPipeline,
  files: string[],
  { images, seeds }: Output,
  timings: Record<string, number | number[]>,
  memory: MemoryReport,
): object {
  const exact = (seed: bigint) => (seed <= Number.MAX_SAFE_INTEGER ? Number(seed) : String(seed));
  return {
    files,
    prompt,
    negativePrompt: options.negative ?? '',
    model: options.model,
    seed: exact(seeds[0]!),
    seeds: seeds.map(exact),
    steps: options.steps,
    guidanceScale: options.guidance,
    scheduler: pipe.scheduler.className,
    width: images[0]!.width,
    height: images[0]!.height,
    batch: images.length,
    backend: tf.getBackend(),
    dtype: options.dtype,
    attention: resolveAttention(options.attention).name,
    attentionLayers: attentionStatistics(pipe.unet.transformerBlocks.flatMap(({ attn1, attn2 }) => [attn1, attn2])),
    timings,
    peakMemoryBytes: memory.peakBytes,
    memory,
    versions: versions(),
  };
}
