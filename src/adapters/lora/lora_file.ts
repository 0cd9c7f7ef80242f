import type { Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { StateDictError } from '../../errors.js';
import { decodeToFloat32, type StateDict } from '../../loaders/state_dict.js';
import type { Model } from '../../models/index.js';
import { list } from '../../models/model_loading.js';
import { FullDelta, LowRankDelta, type Parameter, type WeightChange } from '../../nn/index.js';
import { is } from '../../utils/check.js';
import { warn } from '../../utils/logging.js';
import { LoraChange, WeightDecomposedChange } from './lora_changes.js';
import { familyOf, type LoraFamily, type Parts } from './lora_families.js';
import { type LoraComponent, layersByLoraName, parseLoraKey } from './lora_names.js';

/** How a LoRA file changes one parameter: W + weight * scaling * delta. */
export interface LoraTarget {
  /** The layer's path. */
  path: string;
  parameter: Parameter;
  change: WeightChange;
  /** The file's own factor, alpha / rank. */
  scaling: number;
}

/** The models of a pipeline that a LoRA file can change. */
export type LoraModels = Readonly<Partial<Record<LoraComponent, Model>>>;

/** What a LoRA file says, by component. */
export type LoraTargets = Partial<Record<LoraComponent, LoraTarget[]>>;

/** A layer as the file has it: its keys by part. */
interface FoundLayer {
  component: LoraComponent;
  path: string;
  keys: Record<string, string>;
}

/** The same, checked against the model. */
interface PlannedLayer extends FoundLayer {
  family: LoraFamily;
  weight: Parameter;
  bias: Parameter | null;
  shapes: Parts<readonly number[]>;
}

/** DoRA's magnitudes in kohya's form, which diffusers leaves out, too. */
const DORA_SCALE = /\.dora_scale$/;

/**
 * Reads a LoRA file for a pipeline's models: diffusers' first and present forms, PEFT's, kohya's and LyCORIS's (LoRA,
 * LoCon, LoHa, LoKr, full). Source: diffusers/loaders/lora_pipeline.py, lora_conversion_utils.py.
 *
 * @param metadata the file's `__metadata__`, where diffusers keeps PEFT's alphas
 * @param source names the file in errors
 * @throws StateDictError that lists every key that fits no layer of the models; nothing has been read then
 */
export async function readLora(
  dict: StateDict,
  metadata: Readonly<Record<string, string>>,
  models: LoraModels,
  source: string,
): Promise<LoraTargets> {
  const planned = planLayers(dict, models, source);
  const alphas = new PeftAlphas(metadata, source);
  const targets: LoraTargets = {};
  try {
    for (const layer of planned) {
      const found = await readLayer(dict, layer, alphas);
      (targets[layer.component] ??= []).push(...found);
    }
    return targets;
  } catch (error) {
    disposeTargets(targets);
    throw error;
  }
}

export function disposeTargets(targets: LoraTargets): void {
  tf.dispose(Object.values(targets).flatMap((list) => list.flatMap(({ change }) => [...change.tensors])));
}

function planLayers(dict: StateDict, models: LoraModels, source: string): PlannedLayer[] {
  const keys = dict.keys().filter((key) => !DORA_SCALE.test(key));
  if (keys.length < dict.keys().length) {
    warn(`${source}: the magnitudes of DoRA ('dora_scale') are left out, as Python's diffusers does`);
  }
  if (keys.length > 0 && keys.every((key) => !parseLoraKey(key))) {
    throw new StateDictError(`${source} is no LoRA: it holds ${keys.length} tensors such as '${keys[0]}'`);
  }
  const { layers, unknown } = findLayers(keys, models);
  const planned = layers.map((layer) => planLayer(dict, layer, models[layer.component]!));
  const incomplete = layers.filter((_, i) => planned[i] === null).flatMap((layer) => Object.values(layer.keys));
  const complete = planned.filter((layer) => layer !== null);
  const wrong = complete.flatMap(misfit);
  if (keys.length === 0 || unknown.length + incomplete.length + wrong.length > 0) {
    const none = complete.length === wrong.length;
    throw new StateDictError(
      `${source} ${none ? 'is no LoRA for this model' : 'does not fit this model as a whole; it may be for another one'}:` +
        (keys.length === 0 ? ' it holds no tensors' : '') +
        list('of no layer of the model', unknown) +
        list('of another shape', wrong) +
        list('without the other tensors of their layer, or of no kind of LoRA that is known', incomplete),
    );
  }
  return complete;
}

function findLayers(keys: readonly string[], models: LoraModels): { layers: FoundLayer[]; unknown: string[] } {
  const names = new Map(Object.entries(models).map(([component, model]) => [component, layersByLoraName(model)]));
  const layers = new Map<string, FoundLayer>();
  const unknown: string[] = [];
  for (const key of keys) {
    const parsed = parseLoraKey(key);
    const path = parsed && names.get(parsed.component)?.get(parsed.layer);
    if (!parsed || path === undefined) {
      unknown.push(key);
      continue;
    }
    const { component, part } = parsed;
    const layer = layers.get(`${component}.${path}`) ?? { component, path, keys: {} };
    layers.set(`${component}.${path}`, layer);
    if (layer.keys[part] === undefined) {
      layer.keys[part] = key;
    } else {
      unknown.push(key);
    }
  }
  return { layers: [...layers.values()], unknown };
}

/** Null for tensors that make no change together. */
function planLayer(dict: StateDict, layer: FoundLayer, model: Model): PlannedLayer | null {
  const { weight, bias } = model.layers.get(layer.path)!;
  const family = familyOf(Object.keys(layer.keys));
  const hasBias = ['up_bias', 'diff_b', 'b_norm'].some((part) => part in layer.keys);
  const shapes = mapParts(layer.keys, (key) => dict.info(key)!.shape);
  return family && (bias || !hasBias) ? { ...layer, family, weight, bias, shapes } : null;
}

function mapParts<T, U>(parts: Parts<T>, f: (part: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, f(part!)]));
}

/** What is wrong with a layer's shapes; nothing, or one text. */
function misfit({ family, weight, bias, shapes, keys }: PlannedLayer): string[] {
  const [out, inputs] = [weight.shape[0]!, weight.size / weight.shape[0]!];
  const size = family.size(shapes);
  const count = (shape: readonly number[] | undefined) => shape?.reduce((a, b) => a * b, 1);
  const biases = [shapes.up_bias, shapes.diff_b, shapes.b_norm].map(count).filter((n) => n !== undefined);
  const others = [...biases.map((n) => n === bias?.size), ...[count(shapes.magnitude) ?? out].map((n) => n === out)];
  if (size && size[0] === out && size[1] === inputs && others.every(Boolean) && (count(shapes.alpha) ?? 1) === 1) {
    return [];
  }
  const given = Object.entries(shapes).map(([part, shape]) => `${part} [${shape}]`);
  return [`${Object.values(keys)[0]}: got ${given.join(', ')} for a weight of [${weight.shape}]`];
}

async function readLayer(dict: StateDict, layer: PlannedLayer, alphas: PeftAlphas): Promise<LoraTarget[]> {
  const { keys, family, path, weight: parameter, bias, shapes } = layer;
  const { alpha: alphaKey, ...tensorKeys } = keys;
  const numbers = async (key: string) => decodeToFloat32(await dict.read(key), dict.info(key)!.dtype);
  const read = Object.entries(tensorKeys).map(async ([part, key]) => [part, await numbers(key)] as const);
  const data = Object.fromEntries(await Promise.all(read));
  const alpha = alphaKey === undefined ? undefined : (await numbers(alphaKey))[0]!;
  const rank = family.rank(shapes);
  const scaling = rank === null ? 1 : alpha === undefined ? alphas.scaling(layer, rank) : alpha / rank;
  const tensors = mapParts(data, (values) => values);
  const { magnitude, up_bias, diff_b, b_norm, ...factors } = Object.fromEntries(
    Object.entries(tensors).map(([part, values]) => [part, tf.tensor(values, shapes[part] as number[], 'float32')]),
  ) as Parts<Tensor>;
  const direction = changeOf(family, factors);
  const change = magnitude ? new WeightDecomposedChange(direction, magnitude) : direction;
  const shift = up_bias ?? diff_b ?? b_norm;
  const targets: LoraTarget[] = [{ path, parameter, change, scaling }];
  if (shift && bias) {
    targets.push({ path, parameter: bias as unknown as Parameter, change: new FullDelta(shift), scaling });
  }
  return targets;
}

function changeOf(family: LoraFamily, parts: Parts<Tensor>): WeightChange {
  const { down, up, mid } = parts;
  return down && up && !mid ? new LowRankDelta(down, up) : new LoraChange(family, parts);
}

/** Components' names in diffusers' files. */
const FOLDERS: Readonly<Record<LoraComponent, string>> = {
  unet: 'unet',
  textEncoder: 'text_encoder',
  textEncoder2: 'text_encoder_2',
};

/** PEFT's configuration in a file of diffusers: `lora_adapter_metadata`, {"unet.lora_alpha": 8, ...}. */
class PeftAlphas {
  private readonly config: Record<string, unknown>;

  /** @throws StateDictError for one that is no JSON object */
  constructor(metadata: Readonly<Record<string, string>>, source: string) {
    const text = metadata.lora_adapter_metadata ?? '{}';
    let config: unknown;
    try {
      config = JSON.parse(text);
    } catch {
      config = undefined;
    }
    if (!is.object(config)) {
      throw new StateDictError(`${source}: lora_adapter_metadata expects a JSON object, got ${text.slice(0, 80)}`);
    }
    this.config = config;
  }

  /** alpha / rank, alpha / sqrt(rank) with use_rslora; 1 where the file says no alpha. */
  scaling({ component, path }: FoundLayer, rank: number): number {
    const entry = (name: string) => this.config[`${FOLDERS[component]}.${name}`];
    const patterns = is.object(entry('alpha_pattern')) ? (entry('alpha_pattern') as Record<string, unknown>) : {};
    const own = Object.entries(patterns).find(([pattern]) => matchesModule(pattern, path))?.[1];
    const alpha = own ?? entry('lora_alpha');
    if (!is.number(alpha)) {
      return 1;
    }
    return alpha / (entry('use_rslora') === true ? Math.sqrt(rank) : rank);
  }
}

/** Whether a module's path ends with a pattern's names; with '^' it begins with them, too. */
function matchesModule(pattern: string, path: string): boolean {
  const names = pattern.replace(/^\^|\$$/g, '');
  return path === names || (!pattern.startsWith('^') && path.endsWith(`.${names}`));
}
