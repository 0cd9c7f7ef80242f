export { type AttentionConfig, AttentionProjections } from './attention_projections.js';
export {
  BasicTransformerBlock,
  type TransformerBlockConfig,
  type TransformerInputs,
} from './basic_transformer_block.js';
export { type AttentionInputs, CrossAttention } from './cross_attention.js';
export { FeedForward } from './feed_forward.js';
export { KeyValueCache } from './key_value_cache.js';
export { MemoryEfficientCrossAttention } from './memory_efficient_cross_attention.js';
export { ATTENTION_NAMES, type AttentionName, createAttention, resolveAttention } from './registry.js';
