export { type AttentionConfig, AttentionProjections } from './attention_projections.js';
export { AutoAttention, attentionStatistics, describeAutoAttention } from './auto_attention.js';
export {
  BasicTransformerBlock,
  type TransformerBlockConfig,
  type TransformerInputs,
} from './basic_transformer_block.js';
export { type AttentionClassOptions, type AttentionInputs, CrossAttention } from './cross_attention.js';
export { DoggettxAttention } from './doggettx_attention.js';
export { type ChunkOptions, efficientDotProductAttention } from './efficient_dot_product_attention.js';
export { FeedForward } from './feed_forward.js';
export { type FreeMemory, freeMemory } from './free_memory.js';
export { InvokeaiAttention, type InvokeaiPlan } from './invokeai_attention.js';
export { KeyValueCache } from './key_value_cache.js';
export { hasFusedAttention, MemoryEfficientCrossAttention } from './memory_efficient_cross_attention.js';
export {
  ATTENTION_NAMES,
  type AttentionName,
  type AttentionOptions,
  type AttentionSetting,
  resolveAttention,
  type SliceSize,
} from './options.js';
export { createAttention } from './registry.js';
export { type AttentionShape, scoreBytes } from './score_matrix.js';
export { SdpAttention } from './sdp_attention.js';
export { SdpNoMemAttention } from './sdp_no_mem_attention.js';
export { SlicedAttention } from './sliced_attention.js';
export { SplitV1Attention } from './split_v1_attention.js';
export { SubQuadraticAttention } from './sub_quadratic_attention.js';
export {
  applyTokenMerging,
  type MapSize,
  removeTokenMerging,
  restartTokenMerging,
  TokenMerging,
  type TokenMergingOptions,
} from './token_merging.js';
