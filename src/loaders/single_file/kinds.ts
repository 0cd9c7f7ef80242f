import { CheckpointError } from '../../errors.js';
import type { StateDict } from '../state_dict.js';

/** What a single file holds. */
export type SingleFileKind =
  | 'v1'
  | 'v1-inpainting'
  | 'v1-instruct-pix2pix'
  | 'v2'
  | 'v2-base'
  | 'v2-inpainting'
  | 'xl-base'
  | 'xl-inpainting'
  | 'xl-refiner'
  | 'vae'
  | 'controlnet-v1'
  | 'controlnet-v2'
  | 'controlnet-xl';

const CONV_IN = 'model.diffusion_model.input_blocks.0.0.weight';
const CROSS_ATTENTION = /^model\.diffusion_model\.input_blocks\.\d+\.1\.transformer_blocks\.0\.attn2\.to_k\.weight$/;
/** Training steps of Stable Diffusion 2's base model, which predicts noise where its successors predict v. */
const V2_BASE_STEPS = 875000n;

/**
 * What a file holds, by names and shapes of its tensors (diffusers/loaders/single_file_utils.py,
 * infer_diffusers_model_type).
 *
 * @param metadata the file's `__metadata__`; `modelspec.prediction_type` says what a model of version 2 predicts
 * @throws CheckpointError for a file that is none of the kinds
 */
export async function kindOf(
  dict: StateDict,
  metadata: Readonly<Record<string, string>>,
  source: string,
): Promise<SingleFileKind> {
  const channels = dict.info(CONV_IN)?.shape[1];
  if (channels === undefined) {
    return partKind(dict, source);
  }
  const known = dict.keys();
  const has = (prefix: string) => known.some((key) => key.startsWith(prefix));
  if (has('conditioner.embedders.1.model.')) {
    return channels === 9 ? 'xl-inpainting' : plain(channels, 'xl-base', source);
  }
  if (has('conditioner.embedders.0.model.')) {
    return plain(channels, 'xl-refiner', source);
  }
  const text = dict.info(known.find((key) => CROSS_ATTENTION.test(key)) ?? '')?.shape[1];
  const isSecond = text === 1024 || has('cond_stage_model.model.');
  if (isSecond) {
    const v2 = (await predictsNoise(dict, metadata)) ? 'v2-base' : 'v2';
    return channels === 9 ? 'v2-inpainting' : plain(channels, v2, source);
  }
  return channels === 9 ? 'v1-inpainting' : channels === 8 ? 'v1-instruct-pix2pix' : plain(channels, 'v1', source);
}

function plain(channels: number, kind: SingleFileKind, source: string): SingleFileKind {
  if (channels !== 4) {
    throw new CheckpointError(
      `${source}: a UNet of ${channels} input channels is none of the kinds that single files are read of (4, 9 for inpainting)`,
    );
  }
  return kind;
}

async function predictsNoise(dict: StateDict, metadata: Readonly<Record<string, string>>): Promise<boolean> {
  const told = metadata['modelspec.prediction_type'];
  if (told !== undefined) {
    return told === 'epsilon';
  }
  const steps = dict.info('global_step');
  const bytes = steps?.dtype === 'I64' && steps.shape.length <= 1 ? await dict.read('global_step') : undefined;
  return bytes?.length === 8 && new DataView(bytes.buffer, bytes.byteOffset).getBigInt64(0, true) === V2_BASE_STEPS;
}

/** A VAE or a ControlNet alone, in the original layout or diffusers'. */
function partKind(dict: StateDict, source: string): SingleFileKind {
  const keys = dict.keys();
  const has = (pattern: RegExp) => keys.some((key) => pattern.test(key));
  if (has(/(^|^control_model\.)(input_hint_block|controlnet_cond_embedding)\./)) {
    const text = dict.info(keys.find((key) => key.endsWith('attn2.to_k.weight')) ?? '')?.shape[1];
    const isLarge = has(/(^|\.)(label_emb|add_embedding)\./);
    return isLarge ? 'controlnet-xl' : text === 1024 ? 'controlnet-v2' : 'controlnet-v1';
  }
  if (
    has(/^(first_stage_model\.)?encoder\.conv_in\.weight$/) &&
    has(/^(first_stage_model\.)?decoder\.conv_in\.weight$/)
  ) {
    return 'vae';
  }
  throw new CheckpointError(`${source} ${describeOther(keys)}`);
}

function describeOther(keys: readonly string[]): string {
  const is = (pattern: RegExp) => keys.some((key) => pattern.test(key));
  if (is(/lora_|\.hada_|\.lokr_/)) {
    return 'is a LoRA; load a checkpoint and then pipe.loadLoraWeights(path), or --lora on the command line';
  }
  if (is(/^(emb_params|clip_[lg]|<)/)) {
    return 'is a textual inversion; load a checkpoint and then pipe.loadTextualInversion(path), or --embedding';
  }
  if (is(/double_blocks\.|joint_blocks\.|transformer_blocks\.\d+\.ff_context/)) {
    return 'is a diffusion transformer (SD 3, FLUX, ...), which single files are not read of';
  }
  const shown = keys.slice(0, 3).join(', ');
  return `is no checkpoint of Stable Diffusion 1, 2, XL, no VAE and no ControlNet; it holds ${keys.length} tensors: ${shown}, ...`;
}
