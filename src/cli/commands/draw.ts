import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { applyTokenMerging, resolveAttention } from '../../attention/index.js';
import { pickBackend } from '../../backends/index.js';
import { readJsonObject } from '../../config/config.js';
import { AbortedError } from '../../errors.js';
import { AutoencoderTiny } from '../../models/index.js';
import { checkOptions, sizeChecks } from '../../pipelines/common/options.js';
import {
  type DenoisingProgress,
  type Output,
  type PreviewSetting,
  randomSeed,
  StableDiffusionImg2ImgPipeline,
  StableDiffusionInpaintPipeline,
  StableDiffusionPipeline,
} from '../../pipelines/index.js';
import { createScheduler, findScheduler } from '../../schedulers/index.js';
import { setWarningHandler } from '../../utils/logging.js';
import { loadEmbeddings, loadLoras } from '../adapters.js';
import { asUsage } from '../exit.js';
import type { Interruption } from '../interruption.js';
import { type MemoryReport, withMemoryReport } from '../memory.js';
import { type CommandValues, type DrawingCommand, type OptionValues, optionsFor } from '../options.js';
import { outputPaths } from '../output_paths.js';
import { versions } from '../package_info.js';
import { PreviewFile } from '../preview_file.js';
import { formatSeconds, type ProgressDisplay } from '../progress.js';
import { loadVae } from '../vae.js';

const PIPELINES = {
  txt2img: StableDiffusionPipeline,
  img2img: StableDiffusionImg2ImgPipeline,
  inpaint: StableDiffusionInpaintPipeline,
};
type Pipeline = InstanceType<(typeof PIPELINES)[DrawingCommand]>;

const seconds = (since: number) => (performance.now() - since) / 1000;

/** Draws the pictures that the command line asks for and saves them. */
export async function draw(
  command: DrawingCommand,
  prompt: string,
  values: OptionValues,
  display: ProgressDisplay,
  { signal }: Interruption,
): Promise<void> {
  const begin = performance.now();
  await checkNames(values);
  await checkSize(values);
  const paths = await outputPaths(values.out, prompt, values.batch);
  const preview = values.preview === undefined ? undefined : await PreviewFile.open(values.preview);
  // tfjs-core gives advice about backends unless it believes to be in production
  tf.env().set('PROD', true);
  setWarningHandler((message) => display.note(`warning: ${message}`));

  const { pipe, download } = await load(command, values, display, signal);
  const loaded = seconds(begin);
  const seed = values.seed ?? BigInt(randomSeed());
  display.note(`seed ${seed}, ${tf.getBackend()} backend`);
  display.startDenoising(values.steps);
  const onProgress = (progress: DenoisingProgress) => {
    display.denoising(progress);
    if (progress.preview) {
      preview?.show(progress.preview);
    }
  };
  const setting = preview && (await previewSetting(values));
  const call = { ...optionsFor('call', values), seed, signal, onProgress, preview: setting };
  const generate = () => asUsage(() => pipe.run(prompt, call as never));
  const { value: output, memory } = values.json
    ? await withMemoryReport(generate)
    : { value: await generate(), memory: undefined };
  display.denoised(output.timings);
  await preview?.close();

  const save = await saveAll(output, paths, signal);
  if (memory) {
    const timings = { download, load: loaded - download, ...output.timings, save, total: seconds(begin) };
    print(JSON.stringify(report(prompt, values, pipe, paths, output, timings, memory)));
  } else {
    print(paths.join('\n'));
  }
}

/** How the previews are made. */
async function previewSetting({ previewVae }: CommandValues): Promise<PreviewSetting> {
  return previewVae === undefined ? 'linear' : { vae: await AutoencoderTiny.fromPretrained(previewVae) };
}

/** @throws UsageError for a scheduler or attention that does not exist, before anything is loaded */
function checkNames({ scheduler, attention }: CommandValues): Promise<void> {
  return asUsage(() => {
    if (scheduler !== undefined) {
      findScheduler(scheduler);
    }
    resolveAttention(attention);
  });
}

/** @throws UsageError for sizes that the VAE of a model on this machine cannot have, before anything is loaded */
async function checkSize({ model, width, height }: CommandValues): Promise<void> {
  const config = await readJsonObject(join(model, 'vae', 'config.json')).catch(() => undefined);
  const levels: unknown = config?.block_out_channels;
  if (Array.isArray(levels)) {
    await asUsage(() => checkOptions('tfjs-diffusers', { width, height }, sizeChecks(2 ** (levels.length - 1))));
  }
}

/** Saves each picture; gives the seconds that it took. */
async function saveAll({ images }: Output, paths: string[], signal: AbortSignal): Promise<number> {
  const begin = performance.now();
  for (const [i, image] of images.entries()) {
    if (signal.aborted) {
      throw new AbortedError('saving was stopped');
    }
    await image.save(paths[i]!);
  }
  return seconds(begin);
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

async function load(
  command: DrawingCommand,
  values: OptionValues,
  display: ProgressDisplay,
  signal: AbortSignal,
): Promise<{ pipe: Pipeline; download: number }> {
  const begin = performance.now();
  let download = 0;
  const options = optionsFor('load', values);
  await pickBackend((options.backend ?? 'auto') as 'auto');
  const given = await loadVae(values.vae, values.model, options);
  const pipe = await PIPELINES[command].fromPretrained(values.model, {
    ...options,
    ...given,
    signal,
    onProgress: (progress) => {
      if (progress.stage === 'download') {
        download = seconds(begin);
      }
      display.loading(progress);
    },
  });
  display.note(`loaded ${pipe.modelName} in ${formatSeconds(seconds(begin))}`);
  await changeScheduler(pipe, values);
  await loadLoras(pipe, values.lora);
  for (const word of await loadEmbeddings(pipe, values.embedding)) {
    display.note(`the prompt can say ${word}`);
  }
  await saveMemory(pipe, values);
  return { pipe, download };
}

async function changeScheduler(pipe: Pipeline, { scheduler, schedulerConfig }: CommandValues): Promise<void> {
  if (scheduler !== undefined || schedulerConfig !== undefined) {
    const current = pipe.scheduler;
    pipe.scheduler = await asUsage(() =>
      createScheduler(scheduler ?? current.className, current.config, schedulerConfig),
    );
  }
}

/** What trades time or exactness for memory or speed. */
async function saveMemory(
  pipe: Pipeline,
  { tokenMerging, vaeSlicing, vaeTiling, offload }: CommandValues,
): Promise<void> {
  if (tokenMerging) {
    applyTokenMerging(pipe, { ratio: tokenMerging });
  }
  if (vaeSlicing) {
    pipe.vae.enableSlicing();
  }
  if (vaeTiling) {
    pipe.vae.enableTiling();
  }
  if (offload === 'model') {
    await pipe.enableModelCpuOffload();
  } else if (offload === 'sequential') {
    await pipe.enableSequentialCpuOffload();
  }
}

/** What --json prints: how the pictures were made, seconds by stage, bytes of memory. */
function report(
  prompt: string,
  values: OptionValues,
  pipe: Pipeline,
  files: string[],
  { images, seeds }: Output,
  timings: Record<string, number | number[]>,
  memory: MemoryReport,
): object {
  const exact = (seed: bigint) => (seed <= Number.MAX_SAFE_INTEGER ? Number(seed) : String(seed));
  return {
    files,
    prompt,
    negativePrompt: values.negative ?? '',
    model: values.model,
    seed: exact(seeds[0]!),
    seeds: seeds.map(exact),
    steps: values.steps,
    guidanceScale: values.guidance,
    scheduler: pipe.scheduler.className,
    width: images[0]!.width,
    height: images[0]!.height,
    batch: images.length,
    backend: tf.getBackend(),
    dtype: values.dtype,
    attention: resolveAttention(values.attention as string | undefined).name,
    attentionLayers: pipe.attentionStatistics,
    timings,
    peakMemoryBytes: memory.peakBytes,
    memory,
    versions: versions(),
  };
}
