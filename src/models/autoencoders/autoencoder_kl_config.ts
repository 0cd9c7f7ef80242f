import { choice, count, flag, list, number, oneOrList, only, optional, readConfig } from '../../config/fields.js';
import { ConfigError } from '../../errors.js';
import { invalid } from '../../utils/check.js';
import { checkGroups, MAX_BLOCKS, MAX_CHANNELS, MAX_LAYERS } from '../config_limits.js';
import type { ConfigJson } from '../model.js';

const channels = (fallback: number) => count(fallback, MAX_CHANNELS);

/** AutoencoderKL's config.json with diffusers' defaults. */
const FIELDS = {
  in_channels: channels(3),
  out_channels: channels(3),
  down_block_types: list(choice('DownEncoderBlock2D', ['DownEncoderBlock2D']), ['DownEncoderBlock2D'], MAX_BLOCKS),
  up_block_types: list(choice('UpDecoderBlock2D', ['UpDecoderBlock2D']), ['UpDecoderBlock2D'], MAX_BLOCKS),
  block_out_channels: list(channels(64), [64], MAX_BLOCKS),
  layers_per_block: count(1, MAX_LAYERS),
  act_fn: choice('silu', ['silu', 'swish']),
  latent_channels: channels(4),
  norm_num_groups: channels(32),
  /** Edge of the pictures that the model was trained on, in pixels. */
  sample_size: oneOrList(channels(32), 2),
  /** The denoiser's latents are (latents - shift_factor) * scaling_factor. */
  scaling_factor: number(0.18215),
  shift_factor: optional(number(0)),
  /** Whether 16-bit floats are too small for this model's activations. */
  force_upcast: flag(true),
  use_quant_conv: flag(true),
  use_post_quant_conv: flag(true),
  mid_block_add_attention: flag(true),
  latents_mean: only(null),
  latents_std: only(null),
};

/** Checks an AutoencoderKL's config.json and fills in diffusers' defaults. */
export function parseAutoencoderConfig(json: ConfigJson, source: string) {
  const values = readConfig(source, FIELDS, [], json);
  const blocks = values.downBlockTypes.length;
  for (const [name, length] of [
    ['up_block_types', values.upBlockTypes.length],
    ['block_out_channels', values.blockOutChannels.length],
  ] as const) {
    if (length !== blocks) {
      throw invalid(source, name, `a list of ${blocks}, one for each of down_block_types`, json[name], ConfigError);
    }
  }
  for (const width of values.blockOutChannels) {
    checkGroups(source, values.normNumGroups, width);
  }
  const size = values.sampleSize;
  return {
    ...values,
    blockOutChannels: [...values.blockOutChannels],
    sampleSize: typeof size === 'number' ? size : size[0]!,
  };
}

/** Checked configuration of an AutoencoderKL. */
export type AutoencoderKLConfig = ReturnType<typeof parseAutoencoderConfig>;
