import { ConfigReader } from '../../config/config.js';
import type { ConfigJson } from '../model.js';

const DOWN_BLOCKS = ['CrossAttnDownBlock2D', 'DownBlock2D'] as const;
const UP_BLOCKS = ['UpBlock2D', 'CrossAttnUpBlock2D'] as const;
const MID_BLOCKS = ['UNetMidBlock2DCrossAttn', 'UNetMidBlock2D'] as const;
const CLASS_EMBEDDINGS = ['timestep', 'identity', 'projection', 'simple_projection'] as const;
const ACTIVATIONS = ['silu', 'swish'] as const;

/** Features of diffusers' UNet that are not built here; a checkpoint that needs one is refused by name. */
const ONLY_VALUE: Record<string, unknown> = {
  dual_cross_attention: false,
  encoder_hid_dim: null,
  encoder_hid_dim_type: null,
  time_embedding_type: 'positional',
  time_embedding_act_fn: null,
  attention_type: 'default',
  cross_attention_norm: null,
  num_attention_heads: null,
};

/** Checks a UNet's config.json and fills in diffusers' defaults. Lists have one entry per block. */
export function parseUNetConfig(json: ConfigJson, source: string) {
  const c = new ConfigReader(json, source);
  for (const [name, value] of Object.entries(ONLY_VALUE)) {
    if (c.raw(name) !== null && c.raw(name) !== value) {
      throw c.error(name, `${JSON.stringify(value)} (nothing else is supported)`);
    }
  }
  const downBlockTypes = c.stringList(
    'down_block_types',
    ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
    { choices: DOWN_BLOCKS },
  );
  const blocks = downBlockTypes.length;
  if (blocks === 0) {
    throw c.error('down_block_types', 'a list of at least one block');
  }
  const positive = { min: 1 };
  const layersPerBlock = c.intOrList('layers_per_block', blocks, 2, positive);
  const transformerLayers = transformerLayersPerBlock(c, layersPerBlock);
  const config = {
    sampleSize: sampleSize(c),
    inChannels: c.int('in_channels', 4, positive),
    outChannels: c.int('out_channels', 4, positive),
    centerInputSample: c.bool('center_input_sample', false),
    flipSinToCos: c.bool('flip_sin_to_cos', true),
    freqShift: c.number('freq_shift', 0),
    downBlockTypes,
    midBlockType:
      json.mid_block_type === null ? null : c.oneOf('mid_block_type', MID_BLOCKS, 'UNetMidBlock2DCrossAttn'),
    upBlockTypes: c.stringList(
      'up_block_types',
      ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
      { choices: UP_BLOCKS, length: blocks },
    ),
    onlyCrossAttention: c.boolOrList('only_cross_attention', blocks, false),
    blockOutChannels: c.intList('block_out_channels', [320, 640, 1280, 1280], { ...positive, length: blocks }),
    layersPerBlock,
    downsamplePadding: c.int('downsample_padding', 1, { min: 0, max: 1 }),
    midBlockScaleFactor: c.number('mid_block_scale_factor', 1),
    actFn: c.oneOf('act_fn', ACTIVATIONS, 'silu'),
    normNumGroups: c.int('norm_num_groups', 32, positive),
    normEps: c.number('norm_eps', 1e-5, { min: 0 }),
    crossAttentionDim: c.intOrList('cross_attention_dim', blocks, 1280, positive),
    transformerLayersPerBlock: transformerLayers.down,
    /** In the order of the way up. */
    transformerLayersPerUpBlock: transformerLayers.up,
    /** diffusers calls the number of heads attention_head_dim. */
    numAttentionHeads: c.intOrList('attention_head_dim', blocks, 8, positive),
    useLinearProjection: c.bool('use_linear_projection', false),
    classEmbedType: c.optionalOneOf('class_embed_type', CLASS_EMBEDDINGS),
    numClassEmbeds: c.optionalInt('num_class_embeds', positive),
    classEmbeddingsConcat: c.bool('class_embeddings_concat', false),
    projectionClassEmbeddingsInputDim: c.optionalInt('projection_class_embeddings_input_dim', positive),
    additionEmbedType: c.optionalOneOf('addition_embed_type', ['text_time']),
    additionTimeEmbedDim: c.optionalInt('addition_time_embed_dim', positive),
    upcastAttention: c.bool('upcast_attention', false),
    resnetTimeScaleShift: c.oneOf('resnet_time_scale_shift', ['default', 'scale_shift'], 'default'),
    timeEmbeddingDim: c.optionalInt('time_embedding_dim', positive),
    timestepPostAct: c.optionalOneOf('timestep_post_act', ACTIVATIONS),
    timeCondProjDim: c.optionalInt('time_cond_proj_dim', positive),
    convInKernel: c.int('conv_in_kernel', 3, positive),
    convOutKernel: c.int('conv_out_kernel', 3, positive),
  };
  const attends = downBlockTypes.map(
    (type, i) =>
      type === 'CrossAttnDownBlock2D' ||
      config.upBlockTypes[blocks - 1 - i] === 'CrossAttnUpBlock2D' ||
      (i === blocks - 1 && config.midBlockType === 'UNetMidBlock2DCrossAttn'),
  );
  for (const [i, channels] of config.blockOutChannels.entries()) {
    if (attends[i] && config.numAttentionHeads[i]! > channels) {
      throw c.error('attention_head_dim', `at most as many heads as the ${channels} channels of block ${i}`);
    }
    if (channels % config.normNumGroups !== 0) {
      throw c.error('norm_num_groups', `a divisor of the ${channels} channels of block ${i}`);
    }
  }
  const projection = config.classEmbedType === 'projection' || config.classEmbedType === 'simple_projection';
  if ((projection || config.additionEmbedType) && config.projectionClassEmbeddingsInputDim === null) {
    throw c.error('projection_class_embeddings_input_dim', 'an integer with this class or addition embedding');
  }
  if (config.additionEmbedType && config.additionTimeEmbedDim === null) {
    throw c.error('addition_time_embed_dim', "an integer with addition_embed_type 'text_time'");
  }
  return config;
}

/** Checked configuration of a UNet2DConditionModel. */
export type UNetConfig = ReturnType<typeof parseUNetConfig>;

/** Transformer blocks of each attention in a block: one number for all of them, or one for each. */
type LayersPerBlock = (number | number[])[];

/** The way up takes the same numbers as the way down, or its own list where they differ from one attention to the next. */
function transformerLayersPerBlock(c: ConfigReader, layers: number[]): { down: LayersPerBlock; up: LayersPerBlock } {
  const blocks = layers.length;
  const [name, upName] = ['transformer_layers_per_block', 'reverse_transformer_layers_per_block'];
  const read = (key: string, lengths: number[]): LayersPerBlock | null => {
    const value = c.raw(key);
    if (!Array.isArray(value) || !value.some(Array.isArray)) {
      return value === null ? null : c.intOrList(key, blocks, undefined, { min: 0 });
    }
    const isCount = (n: unknown) => Number.isSafeInteger(n) && (n as number) >= 0;
    const fits = (n: unknown, i: number) =>
      isCount(n) || (Array.isArray(n) && n.length === lengths[i] && n.every(isCount));
    if (value.length !== blocks || !value.every(fits)) {
      throw c.error(key, `a list of ${blocks} counts or lists of counts, one for each of [${lengths}] attentions`);
    }
    return value;
  };
  const down = read(name, layers) ?? new Array<number>(blocks).fill(1);
  const up = read(upName, layers.map((n) => n + 1).reverse());
  if (!up && down.some(Array.isArray)) {
    throw c.error(upName, `a list, because ${name} holds lists`);
  }
  return { down, up: up ?? [...down].reverse() };
}

/** Height and width of the latents that the model was trained on, or null. */
function sampleSize(c: ConfigReader): [number, number] | null {
  const value = c.raw('sample_size');
  if (value === null) {
    return null;
  }
  const [height, width] = c.intOrList('sample_size', 2, undefined, { min: 1 });
  return [height!, width!];
}
