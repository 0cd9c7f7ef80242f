import {
  type CamelCased,
  type ConfigOf,
  choice,
  count,
  flag,
  integer,
  list,
  number,
  oneOrList,
  only,
  optional,
  readConfig,
} from '../../config/fields.js';
import { ConfigError } from '../../errors.js';
import { invalid } from '../../utils/check.js';
import { checkGroups, MAX_BLOCKS, MAX_CHANNELS, MAX_LAYERS } from '../config_limits.js';
import type { ConfigJson } from '../model.js';

const ACTIVATIONS = ['silu', 'swish'] as const;
const DOWN_BLOCKS = ['CrossAttnDownBlock2D', 'DownBlock2D'] as const;
const UP_BLOCKS = ['UpBlock2D', 'CrossAttnUpBlock2D'] as const;
const channels = (fallback: number) => count(fallback, MAX_CHANNELS);

/** Transformer blocks of each attention in a block: one number for all of them, or one for each. */
type LayersPerBlock = (number | number[])[];
const layers = integer(1, { min: 0, max: MAX_LAYERS });
const transformerLayers = oneOrList(oneOrList(layers, MAX_LAYERS + 1), MAX_BLOCKS);
/** Most transformer blocks in all; SDXL has 70. */
const MAX_TRANSFORMER_BLOCKS = 4096;

/** UNet2DConditionModel's config.json with diffusers' defaults. */
const FIELDS = {
  sample_size: optional(oneOrList(count(64, MAX_CHANNELS), 2)),
  in_channels: channels(4),
  out_channels: channels(4),
  center_input_sample: flag(false),
  flip_sin_to_cos: flag(true),
  freq_shift: number(0),
  down_block_types: list(
    choice('DownBlock2D', DOWN_BLOCKS),
    ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
    MAX_BLOCKS,
  ),
  mid_block_type: optional(
    choice('UNetMidBlock2DCrossAttn', ['UNetMidBlock2DCrossAttn', 'UNetMidBlock2D']),
    'UNetMidBlock2DCrossAttn',
  ),
  up_block_types: list(
    choice('UpBlock2D', UP_BLOCKS),
    ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
    MAX_BLOCKS,
  ),
  only_cross_attention: oneOrList(flag(false), MAX_BLOCKS),
  block_out_channels: list(channels(1), [320, 640, 1280, 1280], MAX_BLOCKS),
  layers_per_block: oneOrList(count(2, MAX_LAYERS), MAX_BLOCKS),
  downsample_padding: integer(1, { min: 0, max: 1 }),
  mid_block_scale_factor: number(1),
  act_fn: choice('silu', ACTIVATIONS),
  norm_num_groups: channels(32),
  norm_eps: number(1e-5, { min: 0 }),
  cross_attention_dim: oneOrList(channels(1280), MAX_BLOCKS),
  transformer_layers_per_block: transformerLayers,
  reverse_transformer_layers_per_block: optional(transformerLayers),
  /** diffusers calls the number of heads attention_head_dim. */
  attention_head_dim: oneOrList(channels(8), MAX_BLOCKS),
  use_linear_projection: flag(false),
  class_embed_type: optional(choice('timestep', ['timestep', 'identity', 'projection', 'simple_projection'])),
  num_class_embeds: optional(count(1, 1e6)),
  class_embeddings_concat: flag(false),
  projection_class_embeddings_input_dim: optional(channels(1)),
  addition_embed_type: optional(choice('text_time', ['text_time'])),
  addition_time_embed_dim: optional(channels(1)),
  upcast_attention: flag(false),
  resnet_time_scale_shift: choice('default', ['default', 'scale_shift']),
  time_embedding_dim: optional(channels(1)),
  timestep_post_act: optional(choice('silu', ACTIVATIONS)),
  time_cond_proj_dim: optional(channels(1)),
  conv_in_kernel: count(3, 63),
  conv_out_kernel: count(3, 63),
  dual_cross_attention: only(false),
  encoder_hid_dim: only(null),
  encoder_hid_dim_type: only(null),
  time_embedding_type: only('positional'),
  time_embedding_act_fn: only(null),
  attention_type: only('default'),
  cross_attention_norm: only(null),
  num_attention_heads: only(null),
};

/** Of no effect with the kinds of blocks that are built, or in inference. */
const SILENT = [
  'dropout',
  'addition_embed_type_num_heads',
  'mid_block_only_cross_attention',
  'resnet_skip_time_act',
  'resnet_out_scale_factor',
];

type Values = CamelCased<ConfigOf<typeof FIELDS>>;

/** Checks a UNet's config.json and fills in diffusers' defaults. Lists have one entry per block. */
export function parseUNetConfig(json: ConfigJson, source: string) {
  const values = readConfig(source, FIELDS, SILENT, json);
  const { attentionHeadDim, reverseTransformerLayersPerBlock: _, ...same } = values;
  const blocks = values.downBlockTypes.length;
  const perBlock = <T extends number | boolean | string>(name: string, value: T | readonly T[]): readonly T[] =>
    spread(source, name, value, blocks);
  const layersPerBlock = perBlock('layers_per_block', values.layersPerBlock);
  const { down, up } = transformerLayersPerBlock(source, values, layersPerBlock);
  const config = {
    ...same,
    sampleSize: sampleSize(source, values),
    upBlockTypes: perBlock('up_block_types', values.upBlockTypes),
    blockOutChannels: perBlock('block_out_channels', values.blockOutChannels),
    onlyCrossAttention: perBlock('only_cross_attention', values.onlyCrossAttention),
    layersPerBlock,
    crossAttentionDim: perBlock('cross_attention_dim', values.crossAttentionDim),
    transformerLayersPerBlock: down,
    /** In the order of the way up. */
    transformerLayersPerUpBlock: up,
    numAttentionHeads: perBlock('attention_head_dim', attentionHeadDim),
  };
  checkChannels(source, config);
  checkEmbeddings(source, config);
  return config;
}

/** Checked configuration of a UNet2DConditionModel. */
export type UNetConfig = ReturnType<typeof parseUNetConfig>;

/** One value for each of so many blocks. */
function spread<T>(source: string, name: string, value: T | readonly T[], blocks: number): readonly T[] {
  if (!Array.isArray(value)) {
    return new Array<T>(blocks).fill(value as T);
  }
  if (value.length !== blocks) {
    throw invalid(source, name, `a list of ${blocks}, one for each of down_block_types`, value, ConfigError);
  }
  return value;
}

function checkChannels(
  source: string,
  config: Pick<
    UNetConfig,
    'downBlockTypes' | 'upBlockTypes' | 'midBlockType' | 'blockOutChannels' | 'numAttentionHeads' | 'normNumGroups'
  >,
): void {
  const blocks = config.downBlockTypes.length;
  const attends = config.downBlockTypes.map(
    (type, i) =>
      type === 'CrossAttnDownBlock2D' ||
      config.upBlockTypes[blocks - 1 - i] === 'CrossAttnUpBlock2D' ||
      (i === blocks - 1 && config.midBlockType === 'UNetMidBlock2DCrossAttn'),
  );
  for (const [i, width] of config.blockOutChannels.entries()) {
    const heads = config.numAttentionHeads[i]!;
    if (attends[i] && heads > width) {
      const expected = `at most as many heads as the ${width} channels of block ${i}`;
      throw invalid(source, 'attention_head_dim', expected, heads, ConfigError);
    }
    checkGroups(source, config.normNumGroups, width);
  }
}

function checkEmbeddings(
  source: string,
  config: Pick<
    Values,
    'classEmbedType' | 'additionEmbedType' | 'projectionClassEmbeddingsInputDim' | 'additionTimeEmbedDim'
  >,
): void {
  const { classEmbedType, additionEmbedType, projectionClassEmbeddingsInputDim, additionTimeEmbedDim } = config;
  const projects = classEmbedType === 'projection' || classEmbedType === 'simple_projection';
  if ((projects || additionEmbedType) && projectionClassEmbeddingsInputDim === null) {
    const expected = 'an integer with this class or addition embedding';
    throw invalid(source, 'projection_class_embeddings_input_dim', expected, null, ConfigError);
  }
  if (additionEmbedType && additionTimeEmbedDim === null) {
    const expected = "an integer with addition_embed_type 'text_time'";
    throw invalid(source, 'addition_time_embed_dim', expected, null, ConfigError);
  }
}

/** The way up takes the same numbers as the way down, or its own list where they differ from one attention to the next. */
function transformerLayersPerBlock(
  source: string,
  values: Values,
  layersPerBlock: readonly number[],
): { down: LayersPerBlock; up: LayersPerBlock } {
  const blocks = layersPerBlock.length;
  const [name, upName] = ['transformer_layers_per_block', 'reverse_transformer_layers_per_block'];
  const read = (key: string, value: Given, lengths: readonly number[]): LayersPerBlock => {
    const perBlock = typeof value === 'number' ? new Array<number>(blocks).fill(value) : value;
    if (perBlock.length !== blocks || perBlock.some((n, i) => typeof n !== 'number' && n.length !== lengths[i])) {
      const expected = `a list of ${blocks} counts or lists of counts, one for each of [${lengths}] attentions`;
      throw invalid(source, key, expected, value, ConfigError);
    }
    checkTotal(source, key, perBlock, lengths);
    return perBlock.map((n) => (typeof n === 'number' ? n : [...n]));
  };
  const down = read(name, values.transformerLayersPerBlock, layersPerBlock);
  const reversed = values.reverseTransformerLayersPerBlock;
  if (reversed === null && down.some(Array.isArray)) {
    throw invalid(source, upName, `a list, because ${name} holds lists`, null, ConfigError);
  }
  const attentions = layersPerBlock.map((n) => n + 1).reverse();
  return { down, up: reversed === null ? [...down].reverse() : read(upName, reversed, attentions) };
}

type Given = Values['transformerLayersPerBlock'];

function checkTotal(
  source: string,
  key: string,
  perBlock: Exclude<Given, number>,
  attentions: readonly number[],
): void {
  const ofBlock = (n: number | readonly number[], i: number): number =>
    typeof n === 'number' ? n * attentions[i]! : n.reduce((a, b) => a + b, 0);
  const total = perBlock.map(ofBlock).reduce((a, b) => a + b, 0);
  if (total > MAX_TRANSFORMER_BLOCKS) {
    throw invalid(source, key, `at most ${MAX_TRANSFORMER_BLOCKS} transformer blocks in all`, total, ConfigError);
  }
}

/** Height and width of the latents that the model was trained on, or null. */
function sampleSize(source: string, { sampleSize: size }: Values): [number, number] | null {
  if (size === null) {
    return null;
  }
  if (typeof size === 'number') {
    return [size, size];
  }
  if (size.length !== 2) {
    throw invalid(source, 'sample_size', 'an integer, or a list of 2', size, ConfigError);
  }
  return [size[0]!, size[1]!];
}
