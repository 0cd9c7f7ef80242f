import { files as fileSystem } from '#platform';
import type { LoraRecord } from '../../adapters/lora/lora.js';
import type { TextualInversionRecord } from '../../adapters/textual_inversion.js';
import {
  type AttentionSetting,
  applyTokenMerging,
  removeTokenMerging,
  resolveAttention,
  type TokenMergingOptions,
} from '../../attention/index.js';
import type { PhysicalType } from '../../backends/types.js';
import { checkFieldNames } from '../../config/fields.js';
import { NotReproducibleError } from '../../errors.js';
import { type ParsedParameters, parseParameters } from '../../images/index.js';
import { type InputFile, identifyFile } from '../../images/read_image.js';
import { Autoencoder, type UNet2DConditionModel } from '../../models/index.js';
import { createScheduler, findScheduler, schedulerNames } from '../../schedulers/index.js';
import { expectThat, is, oneOf } from '../../utils/check.js';
import { baseName } from '../../utils/paths.js';
import type { WithLora } from './adapter_loader.js';
import { modelsOf } from './components.js';
import type { RecordedPipeline, SchedulerSettings, VaeSettings } from './generation_metadata.js';
import { type Check, COUNT, checkOptions, type DenoisingStep, NUMBER, SHARE } from './options.js';
import { parseJson, RECORDED_OPTIONS } from './recorded_options.js';

/** A LoRA of a picture's metadata. */
export type RecordedLora = LoraRecord & { file: InputFile };

/** A textual inversion of a picture's metadata. */
export type RecordedEmbedding = TextualInversionRecord & { file: InputFile };

/** Everything that draws the same picture again. */
export interface Redrawing {
  /** Class of the pipeline. */
  pipeline: string;
  /** Name of the checkpoint, without its directory or owner; undefined for a pipeline that was not loaded from one. */
  model: string | undefined;
  prompt: string | string[];
  /** Options of the call, the pictures that it begins with left out until `withInputs`. */
  options: Record<string, unknown>;
  /** Which picture of the batch it is. */
  index: number;
  /** Files that the call took, in the order of `INPUTS`; none of them is ever opened by name. */
  inputs: (InputFile & { option: string })[];
  /** LoRAs at work and words that were taught; `loadRedrawingAdapters` takes their files. */
  loras: RecordedLora[];
  embeddings: RecordedEmbedding[];
  scheduler: SchedulerSettings;
  tokenMerging: TokenMergingOptions | null;
  vae: VaeSettings;
  /** By component, or for all. */
  attention: string | Record<string, AttentionSetting>;
  dtype: PhysicalType;
  backend: string;
}

const WHERE = 'redraw';
/** Options that are pictures. */
const INPUTS = ['image', 'maskImage', 'controlImage'] as const;
/** Larger files are refused before they are read. */
const MAX_FILE_BYTES = 256e6;
const MAX_ADAPTER_BYTES = 8e9;
const FLAG: Check = [is.boolean, 'true or false'];
const DTYPES: readonly PhysicalType[] = ['float32', 'bfloat16', 'float16'];
const TEXTS: Check = [(value) => Array.isArray(value) && value.length > 0 && value.every(is.string), 'a list of texts'];
const HASH = /^[0-9a-f]{64}$/;
const isFile = (value: unknown) => is.object(value) && is.string(value.name) && HASH.test(String(value.sha256));
const FILES: Check = [(value) => Array.isArray(value) && value.every(isFile), 'a list of {name, sha256}'];
const isLora = (value: unknown) => is.object(value) && is.string(value.name) && isFile(value.file);
const LORAS: Check = [(value) => Array.isArray(value) && value.every(isLora), 'a list of {name, file, weight}'];
const isEmbedding = (value: unknown) => is.object(value) && is.string(value.token) && isFile(value.file);
const EMBEDDINGS: Check = [(value) => Array.isArray(value) && value.every(isEmbedding), 'a list of {token, file}'];
const OBJECT: Check = [is.object, 'a JSON object'];

const MERGING_CHECKS: Readonly<Record<string, Check>> = {
  ratio: SHARE,
  maxDownsample: COUNT,
  sx: COUNT,
  sy: COUNT,
  useRand: FLAG,
  seed: [is.integer, 'an integer'],
  mergeAttention: FLAG,
  mergeCrossAttention: FLAG,
  mergeMlp: FLAG,
};

type Settings = ParsedParameters['settings'];

/**
 * What draws the picture again whose metadata is `parameters` (`readParameters` gives it).
 *
 * @throws NotReproducibleError for a picture that cannot be drawn again, or was not drawn by this library
 * @throws InvalidArgumentError for entries that are not as this library writes them
 */
export function redraw(parameters: string): Redrawing {
  const { prompt, negativePrompt, settings } = parseParameters(parameters);
  checkReproducible(settings);
  const prompts = json(settings, 'prompts', TEXTS, [prompt]) as string[];
  const negative = json(settings, 'negativePrompts', TEXTS, negativePrompt === '' ? [] : [negativePrompt]) as string[];
  const inputs = INPUTS.flatMap((option) =>
    (json(settings, option, FILES, []) as InputFile[]).map((file) => ({ ...file, option })),
  );
  const index = whole(settings, 'Batch pos', 0);
  return {
    pipeline: settings.Pipeline!,
    model: settings.Model,
    prompt: prompts.length > 1 ? prompts : prompts[0]!,
    options: {
      ...recordedOptions(settings),
      ...stepOptions(settings),
      ...(inputs.length > 0 ? {} : sizeOptions(settings)),
      ...(negative.length === 0 ? {} : { negativePrompt: negative.length > 1 ? negative : negative[0]! }),
      seed: seedOf(settings),
    },
    index,
    inputs,
    loras: json(settings, 'LoRA', LORAS, []) as RecordedLora[],
    embeddings: json(settings, 'Textual inversion', EMBEDDINGS, []) as RecordedEmbedding[],
    scheduler: schedulerOf(settings),
    tokenMerging: tokenMergingOf(settings),
    vae: vaeOf(settings),
    attention: attentionOf(settings),
    dtype: dtypeOf(settings),
    backend: settings.backend ?? 'auto',
  };
}

/** @throws NotReproducibleError */
function checkReproducible(settings: Settings): void {
  if (settings.Version !== 'tfjs-diffusers' || settings.Pipeline === undefined || settings.Scheduler === undefined) {
    throw new NotReproducibleError('the metadata does not say all that is needed: this library has not written it');
  }
  const missing = settings['Not reproducible'];
  if (missing !== undefined) {
    throw new NotReproducibleError(
      `the picture cannot be drawn again: its metadata cannot hold what came by ${missing}`,
    );
  }
}

function check(name: string, value: unknown, [usable, expected]: Check): void {
  expectThat(usable(value), WHERE, name, typeof expected === 'string' ? expected : expected(value), value);
}

function json(settings: Settings, name: string, usable: Check, otherwise: unknown): unknown {
  const text = settings[name];
  if (text === undefined) {
    return otherwise;
  }
  const value = parseJson(text);
  check(name, value, usable);
  return value;
}

function whole(settings: Settings, name: string, otherwise: number): number {
  return json(settings, name, [is.whole, 'a whole number'], otherwise) as number;
}

function recordedOptions(settings: Settings): Record<string, unknown> {
  const given = Object.entries(RECORDED_OPTIONS).filter(([, { label }]) => settings[label] !== undefined);
  const options = given.map(([name, { label, read, check: usable }]) => {
    const value = read(settings[label]!);
    check(label, value, usable);
    return [name, value];
  });
  return Object.fromEntries(options);
}

/** Steps, unless the schedule is written out; for a call that was stopped what stops it again. */
function stepOptions(settings: Settings): Record<string, unknown> {
  const own = settings.timesteps !== undefined || settings.sigmas !== undefined;
  const steps = json(
    settings,
    settings.numInferenceSteps === undefined ? 'Steps' : 'numInferenceSteps',
    COUNT,
    undefined,
  );
  const taken = json(settings, 'Stopped after', COUNT, undefined) as number | undefined;
  const stop = ({ step }: DenoisingStep) => ({ stop: step + 1 >= taken! });
  return {
    ...(own ? {} : { numInferenceSteps: steps }),
    ...(taken === undefined ? {} : { callbackOnStepEnd: stop }),
  };
}

function sizeOptions({ Size: size }: Settings): Record<string, number> {
  const match = /^(\d{1,6})x(\d{1,6})$/.exec(size ?? '');
  expectThat(match !== null, WHERE, 'Size', "width and height, such as '512x512'", size);
  return { width: Number(match[1]), height: Number(match[2]) };
}

/** 64 bits, which JSON's numbers do not hold. */
function seedOf(settings: Settings): bigint | bigint[] {
  const text = settings.seeds ?? settings.Seed ?? '';
  const usable = /^(\[\d{1,20}(,\d{1,20})*\]|\d{1,20})$/.test(text);
  expectThat(usable, WHERE, settings.seeds === undefined ? 'Seed' : 'seeds', 'a seed or a list of seeds', text);
  const seeds = text.replace(/[[\]]/g, '').split(',').map(BigInt);
  return settings.seeds === undefined ? seeds[0]! : seeds;
}

function schedulerOf(settings: Settings): SchedulerSettings {
  const className = settings.Scheduler!;
  const known = schedulerNames().classNames;
  expectThat(known.includes(className), WHERE, 'Scheduler', oneOf(known), className);
  const complete = settings['Scheduler full config'] !== undefined;
  const name = complete ? 'Scheduler full config' : 'Scheduler config';
  const config = json(settings, name, OBJECT, {}) as Record<string, unknown>;
  const { fields } = findScheduler(className).scheduler;
  checkFieldNames(className, fields, config);
  for (const [entry, value] of Object.entries(config)) {
    const { expected } = fields[entry]!;
    check(entry, value, [(given) => fields[entry]!.parse(given) !== undefined, expected]);
  }
  return { className, config, complete };
}

function tokenMergingOf(settings: Settings): TokenMergingOptions | null {
  const ratio = json(settings, 'Token merging ratio', SHARE, undefined) as number | undefined;
  if (ratio === undefined) {
    return null;
  }
  const options = { ...(json(settings, 'tokenMerging', OBJECT, {}) as object), ratio };
  checkOptions('tokenMerging', options, MERGING_CHECKS);
  return options;
}

function vaeOf(settings: Settings): VaeSettings {
  const vae = json(settings, 'vae', OBJECT, {}) as VaeSettings;
  checkOptions('vae', vae, { slicing: FLAG, tiling: OBJECT, file: [isFile, 'an object {name, sha256}'] });
  checkOptions('vae', vae.tiling ?? {}, { tileSampleMinSize: COUNT, tileOverlapFactor: NUMBER });
  return vae;
}

function attentionOf({ Attention: text = 'auto' }: Settings): Redrawing['attention'] {
  const value = text.startsWith('{') ? parseJson(text) : text;
  const all = is.object(value) ? Object.values(value) : [value];
  for (const setting of all) {
    check('Attention', setting, [(given) => is.string(given) || is.object(given), 'a name or an object with one']);
    resolveAttention(setting as AttentionSetting);
  }
  return value as Redrawing['attention'];
}

function dtypeOf({ dtype = 'float32' }: Settings): PhysicalType {
  if (dtype.startsWith('{')) {
    throw new NotReproducibleError(`the models were loaded one by one, as different types: ${dtype}`);
  }
  expectThat(is.oneOf(DTYPES, dtype), WHERE, 'dtype', oneOf(DTYPES), dtype);
  return dtype;
}

/**
 * The same with the pictures that the call begins with, which the user gives again.
 *
 * @param files paths or bytes, as many and in the same order as `inputs`
 * @throws NotReproducibleError when there are more or fewer, or one has another content than the metadata says
 * @throws InvalidArgumentError for a path that cannot be read
 */
export async function withInputs(redrawing: Redrawing, files: readonly (string | Uint8Array)[]): Promise<Redrawing> {
  const { inputs, options } = redrawing;
  if (files.length !== inputs.length) {
    const names = inputs.map(({ name, sha256 }) => `'${name}' (SHA-256 ${sha256})`).join(', ');
    const wanted = inputs.length === 0 ? 'no input pictures' : `${inputs.length} input pictures: ${names}`;
    throw new NotReproducibleError(`the picture was drawn with ${wanted}; got ${files.length}`);
  }
  const bytes = await Promise.all(files.map((file, i) => checkedBytes(file, inputs[i]!)));
  const of = (option: string) => bytes.filter((_, i) => inputs[i]!.option === option);
  const given = [...new Set(inputs.map(({ option }) => option))].map((option) => [option, of(option)]);
  return { ...redrawing, options: { ...options, ...Object.fromEntries(given) } };
}

/**
 * Loads the LoRAs and textual inversions of a redrawing, which the user gives again, and sets them to work.
 *
 * @param paths of their files, as many as there are of each kind, in any order
 * @throws NotReproducibleError when there are more or fewer, or one has another content than the metadata says
 */
export async function loadRedrawingAdapters(
  pipe: WithLora,
  { loras, embeddings }: Redrawing,
  paths: { loras?: readonly string[]; embeddings?: readonly string[] },
): Promise<void> {
  const loraPaths = await matchFiles('LoRA', loras, paths.loras ?? []);
  const embeddingPaths = await matchFiles('textual inversion', embeddings, paths.embeddings ?? []);
  for (const [i, { token }] of embeddings.entries()) {
    await pipe.loadTextualInversion(embeddingPaths[i]!, { token });
  }
  for (const [i, { name }] of loras.entries()) {
    await pipe.loadLoraWeights(loraPaths[i]!, { adapterName: name });
  }
  pipe.setAdapters(
    loras.map(({ name }) => name),
    loras.map(({ weight }) => weight),
  );
}

/** The path of each recorded file, found by its content. */
async function matchFiles(
  kind: string,
  records: readonly { file: InputFile }[],
  paths: readonly string[],
): Promise<string[]> {
  const given = await Promise.all(paths.map((path) => identify(path, `the file of a ${kind}`)));
  const missing = records.filter(({ file }) => !given.includes(file.sha256));
  if (missing.length > 0 || paths.length !== records.length) {
    const names = records.map(({ file: { name, sha256 } }) => `'${name}' (SHA-256 ${sha256})`).join(', ');
    const got = paths.map((path, i) => `'${path}' (SHA-256 ${given[i] ?? 'unknown'})`).join(', ');
    const wanted = records.length === 0 ? `without a ${kind}` : `with the ${kind} files ${names}`;
    throw new NotReproducibleError(`the picture was drawn ${wanted}; got ${got === '' ? 'none' : got}`);
  }
  return records.map(({ file }) => paths[given.indexOf(file.sha256)]!);
}

async function identify(path: string, what: string): Promise<string | undefined> {
  return (await identifyFile(baseName(path), await readFile(path, what, MAX_ADAPTER_BYTES)))?.sha256;
}

async function checkedBytes(file: string | Uint8Array, expected: InputFile): Promise<Uint8Array> {
  const bytes = is.string(file) ? await readFile(file, 'the input picture', MAX_FILE_BYTES) : file;
  const name = is.string(file) ? baseName(file) : '';
  const found = await identifyFile(name, bytes);
  if (found?.sha256 !== expected.sha256) {
    throw new NotReproducibleError(
      `${is.string(file) ? `'${file}'` : 'a picture'} is not the picture '${expected.name}' of the metadata: ` +
        `expected SHA-256 ${expected.sha256}, got ${found?.sha256 ?? 'none, which this page cannot compute'}`,
    );
  }
  return bytes;
}

async function readFile(path: string, what: string, maxBytes: number): Promise<Uint8Array> {
  const bytes = await fileSystem.readBytes(path, maxBytes).catch((error: Error) => error);
  expectThat(bytes instanceof Uint8Array, WHERE, what, 'a file that can be read', path);
  return bytes;
}

/**
 * Sets a pipeline up for a redrawing: scheduler, token merging, attention, tiles. `pipe(redrawing.prompt,
 * redrawing.options)` then draws the batch, whose picture number `redrawing.index` it is.
 *
 * @throws NotReproducibleError for a pipeline of another class or other types of numbers
 */
export function applyRedrawing(pipe: RecordedPipeline & { unet: UNet2DConditionModel }, redrawing: Redrawing): void {
  const { scheduler, tokenMerging, vae, attention, dtype, pipeline } = redrawing;
  const models = modelsOf(pipe.components);
  const [, other] = models.find(([, model]) => model.dtype !== dtype) ?? [];
  if (pipe.className !== pipeline || other) {
    const got = `${pipe.className} in ${other?.dtype ?? dtype}`;
    throw new NotReproducibleError(`the picture was drawn by a ${pipeline} in ${dtype}, got a ${got}`);
  }
  const base = scheduler.complete ? {} : pipe.checkpointScheduler;
  pipe.scheduler = createScheduler(scheduler.className, base, scheduler.config);
  if (tokenMerging) {
    applyTokenMerging(pipe, tokenMerging);
  } else {
    removeTokenMerging(pipe);
  }
  for (const [name, model] of models) {
    const own = is.string(attention) ? attention : attention[name];
    model.setAttention(own ?? 'auto');
    if (model instanceof Autoencoder) {
      setTiles(model, vae);
    }
  }
}

function setTiles(vae: Autoencoder, { slicing, tiling }: VaeSettings): void {
  if (slicing) {
    vae.enableSlicing();
  } else {
    vae.disableSlicing();
  }
  vae.enableTiling(tiling !== undefined);
  Object.assign(vae, tiling);
}
