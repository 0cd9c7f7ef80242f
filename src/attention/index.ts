export { type ChunkOptions, efficientDotProductAttention } from '../ops/attention/efficient_dot_product_attention.js';
export { type AttentionShape, scoreBytes } from '../ops/attention/score_matrix.js';
export type { AttentionOperands } from '../ops/attention/slices.js';
export {
  type AttentionLayer,
  type AttentionPlace,
  attentionStatistics,
  setAttentionAt,
} from './layers/attention_layer.js';
export { attentionLayer, createAttention } from './layers/create_attention.js';
export { type AttentionInputs, CrossAttention } from './layers/cross_attention.js';
export { KeyValueCache } from './layers/key_value_cache.js';
export { MemoryEfficientCrossAttention } from './layers/memory_efficient_cross_attention.js';
export { type AttentionConfig, AttentionProjections } from './layers/projections.js';
export { AttentionMethod, type AttentionMethodOptions, type PackedAttention } from './methods/attention_method.js';
export { ClassicAttention } from './methods/classic.js';
export { DoggettxAttention, type DoggettxOptions } from './methods/doggettx.js';
export { InvokeaiAttention, type InvokeaiPlan } from './methods/invokeai.js';
export { hasFusedAttention, MemoryEfficientAttention, SdpNoMemAttention } from './methods/memory_efficient.js';
export { AttentionMemoryError, type AttentionShortage } from './methods/memory_error.js';
export {
  ATTENTION_NAMES,
  type AttentionAlias,
  type AttentionName,
  type AttentionOptions,
  type AttentionSetting,
  resolveAttention,
  type SliceSize,
} from './methods/options.js';
export { createAttentionMethod } from './methods/registry.js';
export { AutoAttention, describeAutoAttention, SdpAttention } from './methods/sdp.js';
export { type RowsAttention, SlicedAttention, SplitV1Attention } from './methods/sliced.js';
export { SubQuadraticAttention } from './methods/sub_quadratic.js';
export type { MergedTokens } from './token_merging/merged_tokens.js';
export {
  applyTokenMerging,
  type BlockMerges,
  type MapSize,
  type MergingBlock,
  type MergingModel,
  removeTokenMerging,
  restartTokenMerging,
  TokenMerging,
  type TokenMergingOptions,
} from './token_merging/token_merging.js';
