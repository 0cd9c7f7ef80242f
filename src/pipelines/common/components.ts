import * as tf from '@tensorflow/tfjs-core';
import { files } from '#platform';
import { type AttentionSetting, resolveAttention } from '../../attention/index.js';
import { type BackendName, pickBackend } from '../../backends/index.js';
import { type PhysicalType, supportsPhysicalTypes } from '../../backends/types.js';
import { ConfigReader, readJson, readJsonObject, writeJson } from '../../config/config.js';
import { ConfigError, DownloadError } from '../../errors.js';
import { type DownloadProgress, type ResolveOptions, resolvePretrained } from '../../loaders/hub/hub.js';
import { findWeightsFile, namesFile } from '../../loaders/hub/weights_file.js';
import { SingleFile } from '../../loaders/single_file/single_file.js';
import { MultiControlNetModel } from '../../models/index.js';
import { checkSaveOptions, Model, type SaveOptions } from '../../models/model.js';
import { type SchedulerConfigJson, SchedulerMixin, schedulerFromConfig } from '../../schedulers/index.js';
import { checkAborted, expectThat, invalid, is } from '../../utils/check.js';
import { warn } from '../../utils/logging.js';
import { baseName, joinPath, parentPath } from '../../utils/paths.js';
import { CALLBACK, type Check, checkOptions, choice, SIGNAL } from './options.js';
import { loadFileComponent } from './single_file.js';

/** Progress of reading weights: tensors of one component. */
export interface LoadProgress {
  stage: 'load';
  component: string;
  loaded: number;
  total: number;
}

/** How a component is loaded. */
export interface ComponentLoadOptions {
  dtype?: PhysicalType;
  variant?: string;
  attention?: AttentionSetting;
  signal?: AbortSignal;
  onProgress?: (loaded: number, total: number) => void;
  /** The file that holds the component, in place of a directory. */
  singleFile?: SingleFile;
}

/** A class that a component can be of. */
interface ComponentClass<T> {
  readonly prototype: T;
  fromPretrained(dir: string, options: ComponentLoadOptions): Promise<T>;
}

/** One row of a pipeline's table of components. */
export interface ComponentSpec<T = unknown> {
  /** Name in model_index.json, and directory of the component. */
  folder: string;
  /** Python's library that the classes are of. */
  library: 'diffusers' | 'transformers';
  /** Names of the classes that it can be of; none: of any, as schedulers are. */
  classNames: readonly string[];
  /** Whether the pipeline draws without it. */
  optional: boolean;
  /** Whether an object can be the component, and what is expected, in words. */
  check: Check;
  load(dir: string, className: string | undefined, options: ComponentLoadOptions): Promise<T>;
  /** diffusers' name of an object's class; undefined for an object that cannot be saved. */
  classNameOf(object: T): string | undefined;
}

/** A pipeline's components by the names that they have in TypeScript. */
export type ComponentTable<C> = { readonly [K in keyof C]: ComponentSpec<NonNullable<C[K]>> };

/**
 * A row of a table of components.
 *
 * @param folder name in model_index.json
 * @param classes by diffusers' names; the first one that an object is an instance of names it when it is saved. None: no
 *   class of it is built, and a checkpoint's component of that name is left out.
 * @param options.check what else can be the component than objects of the classes
 */
export function component<T extends object>(
  folder: string,
  classes: Readonly<Record<string, ComponentClass<T>>>,
  options: { library?: 'diffusers' | 'transformers'; optional?: boolean; check?: Check } = {},
): ComponentSpec<T> {
  const { library = 'diffusers', optional = false } = options;
  const classNames = Object.keys(classes);
  const classNameOf = (object: unknown) =>
    classNames.find((name) => Object.prototype.isPrototypeOf.call(classes[name]!.prototype, object as object));
  const expected = classNames.length > 0 ? `an object of class ${classNames.join(' or ')}` : 'null';
  return {
    ...{ folder, library, optional, classNames, classNameOf },
    check: options.check ?? [(object) => classNameOf(object) !== undefined, expected],
    load: (dir, className, loadOptions) =>
      loadOptions.singleFile
        ? (loadFileComponent(classes[className!]!, folder, loadOptions.singleFile, loadOptions) as Promise<T>)
        : classes[className!]!.fromPretrained(dir, loadOptions),
  };
}

/** The row of a pipeline's scheduler, which may be of any class: that of model_index.json, or else its configuration's. */
export const schedulerComponent: ComponentSpec<SchedulerMixin> = {
  folder: 'scheduler',
  library: 'diffusers',
  optional: false,
  classNames: [],
  check: [(object) => object instanceof SchedulerMixin, 'a scheduler'],
  load: async (dir, className, { singleFile }) => {
    const path = joinPath(dir, 'scheduler_config.json');
    const config: SchedulerConfigJson | undefined = await (singleFile?.config('scheduler') ?? readJsonObject(path));
    if (!config) {
      throw new ConfigError(`there is no file ${path}`);
    }
    return schedulerFromConfig({ ...config, ...(className === undefined ? {} : { _class_name: className }) });
  },
  classNameOf: (scheduler) => scheduler.className,
};

/** Options of every pipeline's `fromPretrained`, beside components that the caller has already. */
export interface LoadOptions extends Omit<ResolveOptions, 'onProgress' | 'chooseFiles'> {
  /** tfjs backend to draw on. Default: the active one, else the fastest that works here. */
  backend?: 'auto' | BackendName;
  /** How native backends store weights and activations; wasm and cpu always compute in float32. Default 'float32'. */
  dtype?: PhysicalType;
  /** How attention is computed: a name of ATTENTION_NAMES, or an object with one and its options. */
  attention?: AttentionSetting;
  /** For a single file: directory of configurations in diffusers' layout, in place of those of the file's kind. */
  config?: string;
  onProgress?: (progress: LoadProgress | ({ stage: 'download' } & DownloadProgress)) => void;
}

/** Options of `fromPretrained`: how to load, and components to take in place of the checkpoint's; null for none. */
export type FromPretrainedOptions<C = object> = LoadOptions & { [K in keyof C]?: C[K] | null };

const NAME: Check = [(value) => is.string(value) && value !== '', "a name such as 'fp16'"];
const STRING: Check = [is.string, 'a string'];
const BOOLEAN: Check = [is.boolean, 'true or false'];

const LOAD_CHECKS: { readonly [K in keyof Required<LoadOptions>]: Check } = {
  backend: STRING,
  dtype: choice(['float32', 'bfloat16', 'float16']),
  attention: [(value) => is.string(value) || is.object(value), 'a name of ATTENTION_NAMES or an object with one'],
  config: NAME,
  revision: NAME,
  variant: NAME,
  subfolder: NAME,
  allowPatterns: [(value) => Array.isArray(value) && value.every(is.string), 'a list of shell patterns'],
  cacheDir: NAME,
  token: [(value) => is.string(value) || value === false, 'an access token, or false for none'],
  localFilesOnly: BOOLEAN,
  signal: SIGNAL,
  onProgress: CALLBACK,
};

function componentChecks<C>(table: ComponentTable<C>): Record<string, Check> {
  return Object.fromEntries(Object.entries<ComponentSpec>(table).map(([name, { check }]) => [name, check]));
}

/**
 * Checks the components that a pipeline is made of.
 *
 * @throws InvalidArgumentError for objects of other classes, for components that are missing and for names there are none of
 */
export function checkComponents<C extends object>(className: string, table: ComponentTable<C>, components: C): void {
  expectThat(is.object(components), className, 'components', 'an object of components by name', components);
  checkOptions(className, components, componentChecks(table));
  for (const [name, { optional, check }] of Object.entries<ComponentSpec>(table)) {
    const part = (components as Record<string, unknown>)[name];
    expectThat(optional || (part !== undefined && part !== null), className, name, String(check[1]), part);
  }
}

function checkLoadOptions<C>(table: ComponentTable<C>, options: FromPretrainedOptions<C>): void {
  checkOptions('fromPretrained', options, { ...LOAD_CHECKS, ...componentChecks(table) });
  resolveAttention(options.attention ?? undefined);
}

/**
 * Finds or downloads a checkpoint and loads the components that the options do not already give.
 *
 * @param className diffusers' name of the pipeline
 * @returns components by name, null for optional ones that the checkpoint or the caller leaves out, and the
 *   checkpoint's name
 * @throws ConfigError, CheckpointError, StateDictError, DownloadError that say what is wrong with the checkpoint
 */
export async function loadComponents<C extends object>(
  className: string,
  table: ComponentTable<C>,
  idOrDir: string,
  options: FromPretrainedOptions<C>,
): Promise<{ components: C; modelName: string; config: PipelineConfig }> {
  const where = 'fromPretrained';
  const expected = 'a directory, a single file or the id of a repository on the hub';
  expectThat(is.string(idOrDir) && idOrDir !== '', where, 'the checkpoint', expected, idOrDir);
  checkLoadOptions(table, options);
  const singleFile = namesFile(idOrDir, await files.kind(idOrDir)) ? await openFile(idOrDir, options) : undefined;
  const dir = singleFile ? '' : await findCheckpoint(idOrDir, options);
  try {
    const index = singleFile
      ? new ConfigReader(await singleFile.index(), singleFile.path)
      : await readIndex(className, dir);
    const wanted = planComponents(className, table, index, { ...options, singleFile });
    await ensureBackend(options.backend);
    const components = await loadPlanned(wanted, dir, options.signal);
    return { components, modelName: nameOf(idOrDir), config: settingsOf(index) };
  } finally {
    await singleFile?.close();
  }
}

/** The checkpoint's name, for the metadata of pictures. */
function nameOf(idOrDir: string): string {
  return baseName(idOrDir).replace(/\.safetensors$/, '');
}

async function openFile(source: string, options: LoadOptions): Promise<SingleFile> {
  const { revision, cacheDir, token, localFilesOnly, signal, onProgress, config } = options;
  const download = onProgress && ((progress: DownloadProgress) => onProgress({ stage: 'download', ...progress }));
  const where = { revision, cacheDir, token, localFilesOnly, signal, onProgress: download };
  return SingleFile.open(await findWeightsFile(source, where), config);
}

async function loadPlanned<C>(
  wanted: readonly PlannedComponent<C>[],
  dir: string,
  signal: AbortSignal | undefined,
): Promise<C> {
  const components: Partial<C> = {};
  const loaded: unknown[] = [];
  try {
    for (const { name, given, load } of wanted) {
      checkAborted(signal, 'loading');
      const object = given === undefined && load ? await load(dir) : (given ?? null);
      components[name] = object as C[keyof C];
      loaded.push(given === undefined ? object : null);
    }
    return components as C;
  } catch (error) {
    disposeAll(loaded);
    throw error;
  }
}

/** Settings in model_index.json beside the components, by their names there. */
export type PipelineConfig = Readonly<Record<string, boolean>>;

function settingsOf(index: ConfigReader): PipelineConfig {
  const flags = index.keys().filter((key) => !key.startsWith('_') && is.boolean(index.raw(key)));
  return Object.fromEntries(flags.map((key) => [key, index.raw(key) as boolean]));
}

interface PlannedComponent<C> {
  name: keyof C;
  /** What the caller gave: an object, or null for none. */
  given: unknown;
  /** Undefined where the checkpoint has none. */
  load: ((dir: string) => Promise<unknown>) | undefined;
}

/** Which components to take and which to load, those without weights first: their mistakes show early. */
function planComponents<C extends object>(
  className: string,
  table: ComponentTable<C>,
  index: ConfigReader,
  options: FromPretrainedOptions<C> & Pick<ComponentLoadOptions, 'singleFile'>,
): PlannedComponent<C>[] {
  const rows = (Object.keys(table) as (keyof C & string)[]).map((name) => ({ name, spec: table[name] }));
  checkNoOthers(
    className,
    index,
    rows.map(({ spec }) => spec.folder),
  );
  return rows.map(({ name, spec }) => {
    const given = (options as Partial<Record<keyof C, unknown>>)[name];
    if (given === null && !spec.optional) {
      throw invalid('fromPretrained', name, `a component, which ${className} cannot do without`, null);
    }
    const found = given === undefined ? classIn(index, spec) : null;
    return { name, given, load: found ? (dir) => loadOne(spec, dir, found.className, options) : undefined };
  });
}

/** The class that model_index.json gives a component; null where an optional one is left out or is of no class known here. */
function classIn(index: ConfigReader, spec: ComponentSpec): { className: string | undefined } | null {
  const entry = index.raw(spec.folder);
  const className: unknown = Array.isArray(entry) ? entry[1] : undefined;
  if (spec.classNames.includes(className as string)) {
    return { className: className as string };
  }
  if (spec.optional) {
    return null;
  }
  if (spec.classNames.length === 0) {
    return { className: is.string(className) ? className : undefined };
  }
  throw index.error(spec.folder, `[library, ${spec.classNames.join(' or ')}]`);
}

/** @throws ConfigError for a checkpoint with components that the pipeline has no use for: it draws in another way */
function checkNoOthers(className: string, index: ConfigReader, folders: readonly string[]): void {
  const of = index.string('_class_name', className);
  const other = index.keys().find((key) => !key.startsWith('_') && !folders.includes(key) && isClass(index.raw(key)));
  if (other !== undefined) {
    throw new ConfigError(
      `${index.source}: this is a checkpoint of ${of}, whose component '${other}' ${className} has no use for`,
    );
  }
}

const isClass = (entry: unknown) => Array.isArray(entry) && entry.length === 2 && is.string(entry[1]);

function loadOne(
  spec: ComponentSpec,
  dir: string,
  className: string | undefined,
  {
    dtype = 'float32',
    variant,
    attention,
    signal,
    onProgress,
    singleFile,
  }: LoadOptions & Pick<ComponentLoadOptions, 'singleFile'>,
): Promise<unknown> {
  const { folder } = spec;
  const progress =
    onProgress && ((loaded: number, total: number) => onProgress({ stage: 'load', component: folder, loaded, total }));
  const options = { dtype: usableType(dtype), variant, attention, signal, onProgress: progress, singleFile };
  return spec.load(joinPath(dir, folder), className, options);
}

/** The checkpoint's directory, downloaded where it is not on this machine. */
async function findCheckpoint(idOrDir: string, options: LoadOptions): Promise<string> {
  const { onProgress } = options;
  const download = onProgress && ((progress: DownloadProgress) => onProgress({ stage: 'download', ...progress }));
  try {
    return (await resolvePretrained(idOrDir, { ...options, onProgress: download })).dir;
  } catch (error) {
    if (!(error instanceof DownloadError) || error.message.includes(NO_DIRECTORY)) {
      throw error;
    }
    throw new DownloadError(
      `${NO_DIRECTORY} '${idOrDir}' on this machine; as a repository of the hub: ${error.message}`,
      {
        cause: error,
      },
    );
  }
}

const NO_DIRECTORY = 'there is no directory';

/** model_index.json of a checkpoint. */
async function readIndex(className: string, dir: string): Promise<ConfigReader> {
  const path = joinPath(dir, 'model_index.json');
  if (!(await exists(path)) && (await exists(joinPath(dir, 'config.json')))) {
    throw await oneComponent(className, dir);
  }
  return new ConfigReader(await readJson(path), path);
}

async function oneComponent(className: string, dir: string): Promise<ConfigError> {
  const { _class_name: name, architectures } = (await readJson(joinPath(dir, 'config.json'))) as Record<
    string,
    unknown
  >;
  const own = String(name ?? [architectures].flat()[0] ?? 'a model');
  const above = parentPath(dir);
  const advice = (await exists(joinPath(above, 'model_index.json')))
    ? `load the pipeline with ${className}.fromPretrained('${above}')`
    : `${className} needs a directory with model_index.json`;
  return new ConfigError(`'${dir}' holds one component of a pipeline, ${own}, and no model_index.json; ${advice}`);
}

async function exists(path: string): Promise<boolean> {
  return (await files.kind(path)) !== undefined;
}

/**
 * Makes the wanted backend the active one: the named one; else whichever is active already; else the fastest that works.
 *
 * @throws BackendError when the named backend does not work here
 */
async function ensureBackend(name?: 'auto' | BackendName): Promise<void> {
  if (name !== undefined) {
    await pickBackend(name);
  } else if (!tf.getBackend()) {
    await pickBackend('auto');
  }
}

/** 16-bit types where the active backend has them; float32, with a warning, elsewhere. */
function usableType(dtype: PhysicalType): PhysicalType {
  if (dtype !== 'float32' && !supportsPhysicalTypes(tf.backend())) {
    warn(`the backend '${tf.getBackend()}' computes in float32 only; dtype '${dtype}' is not used`);
    return 'float32';
  }
  return dtype;
}

/** The models among components, by name; those of a MultiControlNetModel are 'controlnet', 'controlnet_1', ... */
export function modelsOf(components: object): [name: string, model: Model][] {
  return Object.entries(components).flatMap(([name, part]): [string, Model][] => {
    if (part instanceof MultiControlNetModel) {
      return part.nets.map((net, i) => [i === 0 ? name : `${name}_${i}`, net]);
    }
    return part instanceof Model ? [[name, part]] : [];
  });
}

/** Frees what holds memory among components. */
export function disposeAll(components: Iterable<unknown>): void {
  for (const object of components) {
    (object as { dispose?: () => void } | null)?.dispose?.();
  }
}

/** What can be saved. */
interface Savable {
  savePretrained(dir: string, options?: SaveOptions): Promise<void>;
}

/**
 * Writes every component and model_index.json into `dir`, in diffusers' layout.
 *
 * @throws InvalidArgumentError for options out of range and components that cannot be saved, before anything is written
 */
export async function saveComponents<C extends object>(
  className: string,
  table: ComponentTable<C>,
  components: C,
  dir: string,
  options: SaveOptions & { config?: PipelineConfig },
): Promise<void> {
  checkSaveOptions(options);
  const rows = (Object.keys(table) as (keyof C & string)[]).map((name) => {
    const [spec, object]: [ComponentSpec, unknown] = [table[name], components[name]];
    const own = object === null ? null : spec.classNameOf(object);
    if (own === undefined) {
      throw invalid('savePretrained', name, `${spec.classNames.join(' or ')}, which can be saved`, object);
    }
    return { spec, object, own };
  });
  await files.makeDirectory(dir);
  for (const { spec, object } of rows) {
    await saveOne(object, joinPath(dir, spec.folder), options);
  }
  const entries = rows.map(({ spec, own }) => [spec.folder, own === null ? [null, null] : [spec.library, own]]);
  // without it Python warns of each pipeline that has a row for a safety checker, but none
  const safety = 'safety_checker' in Object.fromEntries(entries) ? { requires_safety_checker: false } : {};
  const index = {
    _class_name: className,
    _diffusers_version: '0.40.0',
    ...safety,
    ...options.config,
    ...Object.fromEntries(entries),
  };
  await writeJson(joinPath(dir, 'model_index.json'), index);
}

async function saveOne(object: unknown, dir: string, options: SaveOptions): Promise<void> {
  if (object instanceof SchedulerMixin) {
    await files.makeDirectory(dir);
    await writeJson(joinPath(dir, 'scheduler_config.json'), object.toConfig());
  } else if (object !== null) {
    await (object as Savable).savePretrained(dir, options);
  }
}
