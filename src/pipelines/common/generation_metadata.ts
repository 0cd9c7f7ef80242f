import * as tf from '@tensorflow/tfjs-core';
import { hasOtherChanges, type LoraRecord, loraRecords } from '../../adapters/lora/lora.js';
import { type TextualInversionRecord, textualInversions } from '../../adapters/textual_inversion.js';
import type { AttentionOptions, TokenMerging, TokenMergingOptions } from '../../attention/index.js';
import type { PhysicalType } from '../../backends/types.js';
import { a1111Parameters, PARAMETERS_KEY, parseParameters } from '../../images/index.js';
import type { InputFile } from '../../images/read_image.js';
import { Autoencoder } from '../../models/index.js';
import type { Model } from '../../models/model.js';
import { createScheduler, findScheduler, type SchedulerMixin } from '../../schedulers/index.js';
import { loraModels, textEncodings } from './adapter_loader.js';
import { modelsOf } from './components.js';
import type { LoadedPipeline } from './diffusion_pipeline.js';
import { RECORDED_OPTIONS } from './recorded_options.js';
import { samplerName, scheduleType } from './sampler_names.js';

/** Entries of a scheduler's configuration, to be put over the checkpoint's own or over the class's defaults. */
export interface SchedulerSettings {
  className: string;
  config: Readonly<Record<string, unknown>>;
  /** Whether `config` differs from the defaults of the class, not from the checkpoint's scheduler. */
  complete: boolean;
}

/** How a VAE works on pictures that are too large for it. */
export interface VaeSettings {
  slicing?: true;
  tiling?: { tileSampleMinSize: number; tileOverlapFactor: number };
  /** The file of a VAE that was given in place of the checkpoint's. */
  file?: InputFile;
}

/** What of a pipeline, beside its weights, changes its pictures. */
export interface PipelineSettings {
  className: string;
  scheduler: SchedulerSettings;
  sampler: string;
  scheduleType: string | undefined;
  sigmaMax: number | undefined;
  sigmaMin: number | undefined;
  /** Steps of the schedule; null for a schedule that was not laid out by their number. */
  steps: number | null;
  timesteps: number;
  tokenMerging: TokenMergingOptions | null;
  vae: VaeSettings;
  /** By component. */
  attention: Record<string, Omit<AttentionOptions, 'freeMemory'>>;
  dtype: Record<string, PhysicalType>;
  backend: string;
  /** LoRAs at work. */
  loras: readonly LoraRecord[];
  /** Words that were taught. */
  embeddings: readonly TextualInversionRecord[];
}

/** What is worth knowing about a batch of pictures afterwards. */
export interface GenerationRecord {
  /** Empty when embeddings were given instead. */
  prompts: readonly string[];
  options: object & { negativePrompt?: string | readonly string[]; guidanceScale: number };
  /** Pictures of the batch. */
  pictures: number;
  /** One for the batch or one for each picture; none where they do not tell the noise. */
  seeds: readonly bigint[];
  /** Steps that were taken by a call that was stopped. */
  taken: number | undefined;
  settings: PipelineSettings;
  /** By the option that they came by. */
  inputs: Readonly<Record<string, readonly InputFile[]>>;
  unrecorded: readonly string[];
  modelName: string | undefined;
}

/** A pipeline as it is recorded. */
export interface RecordedPipeline extends LoadedPipeline {
  className: string;
  components: object;
}

interface MergingBlock {
  tokenMerging: TokenMerging | null;
}

const blocksOf = (pipe: RecordedPipeline): readonly MergingBlock[] =>
  modelsOf(pipe.components).flatMap(
    ([, model]) => (model as { transformerBlocks?: readonly MergingBlock[] }).transformerBlocks ?? [],
  );

/** JSON that keeps infinite numbers, under Python's names. */
export const stringify = (value: unknown): string =>
  JSON.stringify(value, (_, item) => (item === Infinity || item === -Infinity ? String(item) : item));

/** The state of a pipeline after its schedule was laid out. */
export function pipelineSettings(pipe: RecordedPipeline): PipelineSettings {
  const { scheduler } = pipe;
  const { sigma_max: max, sigma_min: min } = scheduler.config as Record<string, unknown>;
  const models = modelsOf(pipe.components);
  return {
    className: pipe.className,
    scheduler: schedulerSettings(pipe),
    sampler: samplerName(scheduler),
    scheduleType: scheduleType(scheduler),
    sigmaMax: typeof max === 'number' ? max : undefined,
    sigmaMin: typeof min === 'number' ? min : undefined,
    steps: scheduler.numInferenceSteps,
    timesteps: scheduler.timesteps.length,
    tokenMerging: blocksOf(pipe)[0]?.tokenMerging?.options ?? null,
    vae: vaeSettings(models),
    attention: Object.fromEntries(models.map(([name, model]) => [name, plainAttention(model.attentionOptions)])),
    dtype: Object.fromEntries(models.map(([name, model]) => [name, model.dtype])),
    backend: tf.getBackend(),
    loras: loraRecords(loraModels(pipe.components)),
    embeddings: textualInversions(textEncodings(pipe.components)),
  };
}

function plainAttention({ freeMemory: _, ...options }: AttentionOptions): Omit<AttentionOptions, 'freeMemory'> {
  return options;
}

function vaeSettings(models: [string, Model][]): VaeSettings {
  const vae = models.map(([, model]) => model).find((model) => model instanceof Autoencoder);
  if (!vae) {
    return {};
  }
  const { tileSampleMinSize, tileOverlapFactor } = vae;
  return {
    ...(vae.file ? { file: vae.file } : {}),
    ...(vae.isSliced ? { slicing: true } : {}),
    ...(vae.isTiled ? { tiling: { tileSampleMinSize, tileOverlapFactor } } : {}),
  };
}

function schedulerSettings({ scheduler, checkpointScheduler }: RecordedPipeline): SchedulerSettings {
  const { className } = scheduler;
  if (!isListed(scheduler)) {
    return { className, config: {}, complete: true };
  }
  try {
    const base = createScheduler(className, checkpointScheduler ?? {});
    return { className, config: differences(scheduler, base), complete: checkpointScheduler === undefined };
  } catch {
    // the checkpoint's entries are none that this class can have
    return { className, config: differences(scheduler, createScheduler(className)), complete: true };
  }
}

/** Whether a scheduler is of this library's class of its name. */
function isListed(scheduler: SchedulerMixin): boolean {
  try {
    return findScheduler(scheduler.className).scheduler === scheduler.constructor;
  } catch {
    return false;
  }
}

function differences(scheduler: SchedulerMixin, base: SchedulerMixin): Record<string, unknown> {
  const names = Object.keys(findScheduler(scheduler.className).scheduler.fields);
  const [own, others] = [scheduler.config, base.config] as Record<string, unknown>[];
  const changed = names.filter((name) => stringify(own![name]) !== stringify(others![name]));
  return Object.fromEntries(changed.map((name) => [name, own![name]]));
}

/** Names of what changes pictures and cannot be told in words: a program's tensors, objects and changed weights. */
export function unrecorded(pipe: RecordedPipeline, options: object, fresh: boolean): Set<string> {
  const given = Object.entries(options).filter(([, value]) => value instanceof tf.Tensor);
  const tensors = given.map(([name]) => name);
  const merging = new Set(blocksOf(pipe).map(({ tokenMerging }) => JSON.stringify(tokenMerging?.options ?? null)));
  const records = [...loraRecords(loraModels(pipe.components)), ...textualInversions(textEncodings(pipe.components))];
  const nameless = records.some(({ file }) => file === undefined);
  const changed = nameless || modelsOf(pipe.components).some(([, model]) => hasOtherChanges(model));
  return new Set([
    ...tensors,
    ...pipe.givenComponents.filter(
      (name) => name !== 'scheduler' && !(name === 'vae' && vaeSettings(modelsOf(pipe.components)).file),
    ),
    ...(fresh ? [] : ['generator']),
    ...(isListed(pipe.scheduler) ? [] : ['scheduler']),
    ...(merging.size > 1 ? ['tokenMerging'] : []),
    ...(changed ? ['adapters'] : []),
  ]);
}

type Words = Record<string, string | undefined>;

/** Text metadata of picture number `index` of a batch: prompt and settings in the form of A1111's web UI. */
export function imageMetadata(
  record: GenerationRecord,
  index: number,
  { width, height }: { width: number; height: number },
): Record<string, string> {
  const { options, settings, seeds, pictures, prompts } = record;
  const { 'CFG scale': _, 'Clip skip': clipSkip, width: ownWidth, height: ownHeight, ...words } = optionWords(options);
  const { negativePrompt, guidanceScale } = options;
  const prompt = Math.floor((index * prompts.length) / pictures);
  const texts = {
    prompt: prompts[prompt] ?? '',
    negativePrompt: typeof negativePrompt === 'string' ? negativePrompt : negativePrompt?.[prompt],
  };
  const common = {
    ...texts,
    steps: record.taken ?? stepsOf(settings),
    sampler: settings.sampler,
    guidanceScale,
    seed: seeds.length > 1 ? seeds[index] : seeds[0],
    ...{ width, height },
    model: record.modelName,
    clipSkip: clipSkip === undefined ? undefined : Number(clipSkip),
  };
  const rest = {
    'Schedule type': settings.scheduleType,
    'Schedule max sigma': settings.sigmaMax,
    'Schedule min sigma': settings.sigmaMin,
    ...stoppedWords(record),
    ...words,
    ...batchWords(record, index),
    ...pipelineWords(settings),
    ...inputWords(record.inputs, { width: ownWidth, height: ownHeight }),
    RNG: 'CPU',
    'Not reproducible': record.unrecorded.length > 0 ? record.unrecorded.join(', ') : undefined,
    Version: 'tfjs-diffusers',
  };
  const text = (more: object) => a1111Parameters({ ...common, extra: { ...more, ...rest } });
  const plain = text({});
  // SDXL takes an empty negative prompt for another one than none
  const exact = prompts.length <= 1 && negativePrompt !== '' && readsBack(plain, texts);
  return { [PARAMETERS_KEY]: exact ? plain : text(promptWords(record)) };
}

const stepsOf = ({ steps, timesteps }: PipelineSettings): number => steps ?? timesteps;

/** A call that was stopped: how far it came, and of how many steps. */
function stoppedWords({ taken, settings }: GenerationRecord): Record<string, number | undefined> {
  return taken === undefined ? {} : { 'Stopped after': taken, numInferenceSteps: stepsOf(settings) };
}

function optionWords(options: object): Words {
  const values = options as Readonly<Record<string, unknown>>;
  const given = Object.entries(RECORDED_OPTIONS).filter(([name]) => values[name] !== undefined);
  return Object.fromEntries(given.map(([name, { label, write }]) => [label, write(values[name])]));
}

/** Files that a call has read, a list for each option, and the size that was asked for: `Size` may be that of a file. */
function inputWords(inputs: GenerationRecord['inputs'], size: Words): Words {
  const entries = Object.entries(inputs).filter(([, files]) => files.length > 0);
  const words = Object.fromEntries(entries.map(([name, files]) => [name, stringify(files)]));
  return entries.length === 0 ? {} : { ...size, ...words };
}

function batchWords({ pictures, seeds }: GenerationRecord, index: number): Record<string, string | number | undefined> {
  return pictures === 1
    ? {}
    : {
        'Batch size': pictures,
        'Batch pos': index,
        seeds: seeds.length > 1 ? `[${seeds.join(',')}]` : undefined,
      };
}

/** All prompts of a batch: one can change how long the others become. */
function promptWords({ prompts, options }: GenerationRecord): Record<string, string | undefined> {
  const { negativePrompt } = options;
  return {
    prompts: stringify(prompts),
    negativePrompts: negativePrompt === undefined ? undefined : stringify([negativePrompt].flat()),
  };
}

/** Whether prompts stand in a text so that its readers find them again. */
function readsBack(text: string, texts: { prompt: string; negativePrompt?: string }): boolean {
  const { prompt, negativePrompt } = parseParameters(text);
  const same = prompt === texts.prompt && negativePrompt === (texts.negativePrompt ?? '');
  // neither NUL nor half a character comes through a file
  return same && !text.includes('\0') && !/\p{Surrogate}/u.test(text);
}

/** One value where all components have the same, else all of them as JSON. */
function joined(values: Record<string, unknown>): string {
  const texts = new Set(Object.values(values).map(stringify));
  const [only] = Object.values(values);
  return texts.size === 1 && typeof only === 'string' ? only : stringify(values);
}

function pipelineWords(settings: PipelineSettings): Record<string, string | number | undefined> {
  const { scheduler, tokenMerging, vae, attention } = settings;
  const names = Object.entries(attention).map(([name, options]) => {
    return [name, Object.keys(options).length === 1 ? options.name : options];
  });
  const { ratio, ...merging } = tokenMerging ?? {};
  const config = Object.keys(scheduler.config).length > 0 ? stringify(scheduler.config) : undefined;
  return {
    'Token merging ratio': ratio || undefined,
    tokenMerging: ratio ? stringify(merging) : undefined,
    Pipeline: settings.className,
    Scheduler: scheduler.className,
    [scheduler.complete ? 'Scheduler full config' : 'Scheduler config']:
      config ?? (scheduler.complete ? '{}' : undefined),
    'Textual inversion': settings.embeddings.length > 0 ? stringify(settings.embeddings) : undefined,
    LoRA: settings.loras.length > 0 ? stringify(settings.loras) : undefined,
    vae: Object.keys(vae).length > 0 ? stringify(vae) : undefined,
    Attention: joined(Object.fromEntries(names)),
    dtype: joined(settings.dtype),
    backend: settings.backend,
  };
}
