import { choice, count, flag, list, number, only, readConfig } from '../../config/fields.js';
import { ConfigError } from '../../errors.js';
import { invalid } from '../../utils/check.js';
import { MAX_BLOCKS, MAX_CHANNELS, MAX_LAYERS } from '../config_limits.js';
import type { ConfigJson } from '../model.js';

const channels = (fallback: number) => count(fallback, MAX_CHANNELS);

/** AutoencoderTiny's config.json with diffusers' defaults. */
const FIELDS = {
  in_channels: channels(3),
  out_channels: channels(3),
  encoder_block_out_channels: list(channels(64), [64, 64, 64, 64], MAX_BLOCKS),
  decoder_block_out_channels: list(channels(64), [64, 64, 64, 64], MAX_BLOCKS),
  act_fn: choice('relu', ['relu', 'silu', 'swish']),
  upsample_fn: only('nearest'),
  latent_channels: channels(4),
  upsampling_scaling_factor: only(2),
  num_encoder_blocks: list(count(1, MAX_LAYERS), [1, 3, 3, 3], MAX_BLOCKS),
  num_decoder_blocks: list(count(1, MAX_LAYERS), [3, 3, 3, 1], MAX_BLOCKS),
  scaling_factor: number(1),
  shift_factor: number(0),
  force_upcast: flag(false),
};

/** What the model's own quantisation to bytes needs, and diffusers' copy of decoder_block_out_channels. */
const SILENT = ['latent_magnitude', 'latent_shift', 'block_out_channels'];

/** Checks an AutoencoderTiny's config.json and fills in diffusers' defaults. */
export function parseAutoencoderTinyConfig(json: ConfigJson, source: string) {
  const values = readConfig(source, FIELDS, SILENT, json);
  const { encoderBlockOutChannels: encoder, decoderBlockOutChannels: decoder } = values;
  checkBlocks(source, 'num_encoder_blocks', values.numEncoderBlocks, encoder.length);
  checkBlocks(source, 'num_decoder_blocks', values.numDecoderBlocks, decoder.length);
  // a convolution keeps the channels of its stage, so that the stages can have but one width
  checkWidths(source, 'encoder_block_out_channels', encoder);
  checkWidths(source, 'decoder_block_out_channels', decoder);
  if (encoder.length !== decoder.length) {
    const expected = `as many entries as encoder_block_out_channels, ${encoder.length}`;
    throw invalid(source, 'decoder_block_out_channels', expected, decoder, ConfigError);
  }
  return values;
}

function checkBlocks(source: string, name: string, blocks: readonly number[], stages: number): void {
  if (blocks.length !== stages) {
    throw invalid(source, name, `a list of ${stages}, one for each stage`, blocks, ConfigError);
  }
}

function checkWidths(source: string, name: string, widths: readonly number[]): void {
  if (widths.some((width) => width !== widths[0])) {
    throw invalid(source, name, 'the same number for every stage', widths, ConfigError);
  }
}

/** Checked configuration of an AutoencoderTiny. */
export type AutoencoderTinyConfig = ReturnType<typeof parseAutoencoderTinyConfig>;
