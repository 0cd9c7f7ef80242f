import { files } from '#platform';
import { InvalidArgumentError } from '../../errors.js';
import { type InputFile, identifyFile } from '../../images/read_image.js';
import { findWeightsFile, type WeightsFileOptions } from '../../loaders/hub/weights_file.js';
import { openSafetensors } from '../../loaders/safetensors/index.js';
import type { Model } from '../../models/index.js';
import type { Adapter } from '../../nn/index.js';
import { checkNames, expectThat, invalid, is } from '../../utils/check.js';
import { baseName } from '../../utils/paths.js';
import { type LoraModels, readLora } from './lora_file.js';
import type { LoraComponent } from './lora_names.js';
import type { LoraWeight, ModelWeight } from './lora_weights.js';
import { ModelLora } from './model_lora.js';

/** The name that diffusers and PEFT save a LoRA under. */
const FILE_NAME = 'pytorch_lora_weights.safetensors';

/** Options of `loadLoraWeights`. */
export interface LoraOptions extends WeightsFileOptions {
  /** What the LoRA is called from now on. Default 'default_0', 'default_1', ... */
  adapterName?: string;
}

/** Options of `fuseLora`. */
export interface FuseLoraOptions {
  /** Factor of the LoRAs' weights. Default 1. */
  loraScale?: number;
  /** Those to fuse. Default: all that are at work. */
  adapterNames?: readonly string[];
  /** Models to fuse them into. Default: all. */
  components?: readonly LoraComponent[];
}

/** A LoRA at work in a pipeline, as its pictures' metadata tells it. */
export interface LoraRecord {
  name: string;
  /** The file that it was loaded from; undefined where this page can compute no hash. */
  file: InputFile | undefined;
  weight: LoraWeight;
}

/** The files of LoRAs, by model and name. */
const sources = new WeakMap<Model, Map<string, InputFile | undefined>>();

const entries = (models: LoraModels) => Object.entries(models) as [LoraComponent, Model][];
const states = (models: LoraModels) => entries(models).flatMap(([, model]) => ModelLora.find(model) ?? []);

/** Names of the LoRAs that are loaded, in their order. */
export function loraNames(models: LoraModels): string[] {
  return [...new Set(states(models).flatMap(({ names }) => names))];
}

/**
 * Loads a LoRA file into models; in each model that it changes it alone is at work then, as in PEFT.
 *
 * @throws InvalidArgumentError for a name that is taken
 * @throws StateDictError, CheckpointError, DownloadError for files that cannot be used; nothing has changed then
 */
export async function loadLora(models: LoraModels, pathOrId: string, options: LoraOptions): Promise<void> {
  const { adapterName, ...rest } = options;
  const taken = loraNames(models);
  const name = adapterName ?? `default_${taken.length}`;
  if (taken.includes(name)) {
    throw invalid('loadLoraWeights', 'adapterName', `a name that is not loaded yet (${taken.join(', ')})`, name);
  }
  const path = await findWeightsFile(pathOrId, rest, FILE_NAME);
  const dict = await openSafetensors(path);
  try {
    const source = `'${path}'`;
    const targets = await readLora(dict, dict.metadata, models, source);
    const file = await identifyFile(baseName(path), await files.readBytes(path));
    for (const [component, own] of Object.entries(targets)) {
      const model = models[component as LoraComponent]!;
      ModelLora.of(model).add(name, own);
      sources.set(model, (sources.get(model) ?? new Map()).set(name, file));
    }
  } finally {
    await dict.close();
  }
}

/**
 * Chooses the LoRAs that are at work and their weights.
 *
 * @throws InvalidArgumentError for names that are not loaded and weights that are none
 */
export function setAdapters(
  models: LoraModels,
  names: string | readonly string[],
  weights: LoraWeight | readonly LoraWeight[] = 1,
): void {
  const list = [names].flat() as string[];
  checkLoaded('setAdapters', models, list);
  const each = Array.isArray(weights) ? (weights as LoraWeight[]) : list.map(() => weights as LoraWeight);
  expectThat(each.length === list.length, 'setAdapters', 'weights', `one for each of ${list.length} adapters`, weights);
  const active = entries(models).map(([component, model]) => ({
    state: ModelLora.find(model),
    loras: list.map((name, i) => ({ name, weight: weightFor(component, each[i]!) })),
  }));
  for (const { state, loras } of active) {
    state?.activate(loras);
  }
}

function weightFor(component: LoraComponent, weight: LoraWeight): ModelWeight {
  if (is.number(weight)) {
    return weight;
  }
  expectThat(is.object(weight), 'setAdapters', 'a weight', 'a number, or an object of weights by model', weight);
  checkNames('setAdapters', Object.keys(weight), ['unet', 'textEncoder', 'textEncoder2']);
  const own: unknown = weight[component] ?? 1;
  const usable = is.number(own) || (component === 'unet' && is.object(own));
  expectThat(usable, 'setAdapters', `the weight of ${component}`, 'a number', own);
  return own as ModelWeight;
}

/** @throws InvalidArgumentError for a name that is not loaded */
export function checkLoaded(where: string, models: LoraModels, names: readonly string[]): void {
  const known = loraNames(models);
  for (const name of names) {
    if (!known.includes(name)) {
      const loaded =
        known.length === 0 ? 'none is loaded: call loadLoraWeights first' : `loaded are ${known.join(', ')}`;
      throw new InvalidArgumentError(`[${where}] there is no LoRA '${name}'; ${loaded}`);
    }
  }
}

/** Names of the LoRAs that are at work. */
export function activeAdapters(models: LoraModels): string[] {
  return [...new Set(states(models).flatMap(({ active }) => active.map(({ name }) => name)))];
}

/** Frees LoRAs. @throws InvalidArgumentError for names that are not loaded */
export function deleteAdapters(models: LoraModels, names: string | readonly string[]): void {
  const list = [names].flat() as string[];
  checkLoaded('deleteAdapters', models, list);
  for (const state of states(models)) {
    for (const name of list) {
      state.remove(name);
    }
  }
}

/** Frees all LoRAs; those that are fused stay in the weights. */
export function unloadLora(models: LoraModels): void {
  for (const state of states(models)) {
    state.clear();
  }
}

/** Switches the LoRAs that are at work off, or on again. */
export function enableLora(models: LoraModels, on: boolean): void {
  for (const state of states(models)) {
    state.enabled = on;
  }
}

/** Makes LoRAs part of the weights, those at work or those that are named. */
export function fuseLora(models: LoraModels, options: FuseLoraOptions): void {
  checkNames('fuseLora', Object.keys(options), ['loraScale', 'adapterNames', 'components']);
  const { loraScale = 1, adapterNames = activeAdapters(models), components } = options;
  expectThat(is.number(loraScale), 'fuseLora', 'loraScale', 'a number', loraScale);
  checkLoaded('fuseLora', models, adapterNames);
  const known = entries(models).map(([component]) => component);
  checkNames('fuseLora', components ?? [], known);
  for (const [component, model] of entries(models)) {
    if (components?.includes(component) ?? true) {
      ModelLora.find(model)?.fuse(adapterNames, loraScale);
    }
  }
}

/** Takes fused LoRAs out of the weights, by reading those from the checkpoint's files again. */
export async function unfuseLora(models: LoraModels): Promise<void> {
  for (const state of states(models)) {
    await state.unfuse();
  }
}

/** The LoRAs that are at work, each with its file and its weight. */
export function loraRecords(models: LoraModels): LoraRecord[] {
  return activeAdapters(models).map((name) => {
    const weights = entries(models).flatMap(([component, model]) => {
      const active = ModelLora.find(model)?.active.find((active) => active.name === name);
      return active ? [[component, active.weight] as const] : [];
    });
    const [[, first]] = weights as [[LoraComponent, ModelWeight]];
    const same = is.number(first) && weights.every(([, weight]) => weight === first);
    const file = entries(models).flatMap(([, model]) => sources.get(model)?.get(name) ?? [])[0];
    return { name, file, weight: same ? first : (Object.fromEntries(weights) as LoraWeight) };
  });
}

/**
 * Runs a call with other weights of LoRAs, and with all weights times `scale`.
 *
 * @param weights by name; the others keep theirs
 */
export async function withLora<T>(
  models: LoraModels,
  { weights, scale }: { weights: ReadonlyMap<string, LoraWeight>; scale: number },
  call: () => Promise<T>,
): Promise<T> {
  const before = states(models).map((state) => ({ state, active: state.active }));
  try {
    if (weights.size > 0) {
      const kept = loraRecords(models).filter(({ name }) => !weights.has(name));
      const all = [...kept, ...[...weights].map(([name, weight]) => ({ name, weight }))];
      setAdapters(
        models,
        all.map(({ name }) => name),
        all.map(({ weight }) => weight),
      );
    }
    for (const { state } of before) {
      state.callScale = scale;
    }
    return await call();
  } finally {
    for (const { state, active } of before) {
      state.callScale = 1;
      if (state.active !== active) {
        state.activate(active);
      }
    }
  }
}

/** Whether a model's weights are changed by more than LoRAs that `loraRecords` tells: fused ones, and adapters of others. */
export function hasOtherChanges(model: Model): boolean {
  const own = ModelLora.find(model)?.changes;
  const isOther = ({ change }: Adapter) => !own?.has(change);
  return model.parameters.some(({ adapters, fused }) => fused.length > 0 || adapters.some(isOther));
}
