export {
  BasicTransformerBlock,
  type TransformerBlockConfig,
  type TransformerInputs,
} from '../models/blocks/basic_transformer_block.js';
export { FeedForward } from '../models/blocks/feed_forward.js';
export { type AttentionShape, scoreBytes } from '../ops/attention/score_matrix.js';
export { type AttentionClassOptions, type AttentionInputs, CrossAttention } from './layers/cross_attention.js';
export { KeyValueCache } from './layers/key_value_cache.js';
export { type AttentionConfig, AttentionProjections } from './layers/projections.js';
export { AutoAttention, attentionStatistics, describeAutoAttention } from './methods/auto_attention.js';
export { DoggettxAttention } from './methods/doggettx_attention.js';
export { type ChunkOptions, efficientDotProductAttention } from './methods/efficient_dot_product_attention.js';
export { type FreeMemory, freeMemory } from './methods/free_memory.js';
export { InvokeaiAttention, type InvokeaiPlan } from './methods/invokeai_attention.js';
export { hasFusedAttention, MemoryEfficientCrossAttention } from './methods/memory_efficient_cross_attention.js';
export {
  ATTENTION_NAMES,
  type AttentionName,
  type AttentionOptions,
  type AttentionSetting,
  resolveAttention,
  type SliceSize,
} from './methods/options.js';
export { createAttention } from './methods/registry.js';
export { SdpAttention } from './methods/sdp_attention.js';
export { SdpNoMemAttention } from './methods/sdp_no_mem_attention.js';
export { SlicedAttention } from './methods/sliced_attention.js';
export { SplitV1Attention } from './methods/split_v1_attention.js';
export { SubQuadraticAttention } from './methods/sub_quadratic_attention.js';
export {
  applyTokenMerging,
  type MapSize,
  removeTokenMerging,
  restartTokenMerging,
  TokenMerging,
  type TokenMergingOptions,
} from './token_merging/token_merging.js';
