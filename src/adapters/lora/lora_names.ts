import { UNetNames } from '../../loaders/single_file/unet_names.js';
import { type Model, UNet2DConditionModel } from '../../models/index.js';

/** Models of a pipeline that LoRA files change, by their names among its components. */
export type LoraComponent = 'unet' | 'textEncoder' | 'textEncoder2';

/** Prefixes of keys: diffusers' and PEFT's, kohya's and LyCORIS's. A key without one is the UNet's. */
const PREFIXES: readonly (readonly [prefix: string, component: LoraComponent])[] = [
  ['unet.', 'unet'],
  ['text_encoder.', 'textEncoder'],
  ['text_encoder_2.', 'textEncoder2'],
  ['lora_unet_', 'unet'],
  ['lora_te_', 'textEncoder'],
  ['lora_te1_', 'textEncoder'],
  ['lora_te2_', 'textEncoder2'],
  ['lycoris_', 'unet'],
];

/** Endings of keys that have several forms, and the one name that the tensor has here. */
const ENDINGS: readonly (readonly [ending: RegExp, part: string])[] = [
  [/\.lora_A(\.\w+)?\.weight$|\.lora_down\.weight$|[._]lora(_linear_layer)?\.down\.weight$/, 'down'],
  [/\.lora_B(\.\w+)?\.weight$|\.lora_up\.weight$|[._]lora(_linear_layer)?\.up\.weight$/, 'up'],
  [/\.lora_B(\.\w+)?\.bias$/, 'up_bias'],
  [/\.lora_mid\.weight$/, 'mid'],
  [/\.lora_magnitude_vector(\.\w+)?$/, 'magnitude'],
];

/** Endings that are the names themselves. */
const NAMES = /\.(alpha|dora_scale|diff|diff_b|w_norm|b_norm|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))$/;

/** A key of a LoRA file, taken apart. */
export interface LoraKey {
  component: LoraComponent;
  /** The layer as the file names it, with '_' for every '.'. */
  layer: string;
  /** Which of the layer's tensors it is. */
  part: string;
}

/** Undefined for a key of no form that is known. */
export function parseLoraKey(key: string): LoraKey | undefined {
  const whole = key.replace(/^base_model\.model\./, '');
  const [ending, part] = endingOf(whole) ?? [];
  if (ending === undefined || part === undefined) {
    return undefined;
  }
  const stem = whole.slice(0, -ending.length);
  const [prefix, component] = PREFIXES.find(([prefix]) => stem.startsWith(prefix)) ?? ['', 'unet' as const];
  return { component, layer: flat(stem.slice(prefix.length)).replace('_processor_', '_'), part };
}

function endingOf(key: string): [ending: string, part: string] | undefined {
  for (const [ending, part] of ENDINGS) {
    const match = ending.exec(key);
    if (match) {
      return [match[0], part];
    }
  }
  const match = NAMES.exec(key);
  return match ? [match[0], match[1]!] : undefined;
}

const flat = (path: string): string => path.replaceAll('.', '_');

/** Names of projections in diffusers' first LoRA files, for those of CLIP. */
const FIRST_NAMES: Readonly<Record<string, string>> = {
  q_proj: 'to_q',
  k_proj: 'to_k',
  v_proj: 'to_v',
  out_proj: 'to_out',
};

/** Paths of a model's layers by all the names that LoRA files have for them, with '_' for every '.'. */
export function layersByLoraName(model: Model): Map<string, string> {
  const paths = new Map<string, string>();
  // kohya trains XL on the original code, where a UNet's blocks are numbered through
  const original = model instanceof UNet2DConditionModel ? new UNetNames(model.layers.keys()) : undefined;
  for (const path of model.layers.keys()) {
    for (const name of [...namesOf(path), original?.of(path) ?? path]) {
      paths.set(flat(name), path);
    }
  }
  return paths;
}

function namesOf(path: string): string[] {
  const last = path.slice(path.lastIndexOf('.') + 1);
  const first = path.includes('.self_attn.') ? FIRST_NAMES[last] : undefined;
  const short = path.endsWith('.to_out.0') ? path.slice(0, -2) : undefined;
  const names = [path, short, first && path.slice(0, -last.length) + first].filter((name) => name !== undefined);
  // transformers 5 leaves the first level of CLIP's text encoder out
  return [...names, ...names.filter((name) => name.startsWith('text_model.')).map((name) => name.slice(11))];
}
