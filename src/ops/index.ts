import './gradients.js';

export { type Activation, activate, gelu, geluTanh, quickGelu, silu } from './activations.js';
export type { AttentionBlocks } from './attention/blocks.js';
export { mergeHeads, splitHeads } from './attention/heads.js';
export {
  type MemoryEfficientAttentionOptions,
  memoryEfficientAttention,
  memoryEfficientAttentionTokens,
} from './attention/memory_efficient_attention.js';
export { memoryEfficientAttentionPacked } from './attention/packed_attention.js';
export { type PackedQkvOptions, packedQkv } from './attention/packed_qkv.js';
export { type Conv2dOptions, conv2d } from './conv2d.js';
export type { Padding2D } from './convolve.js';
export type { Implementation } from './fused.js';
export { type GroupNormOptions, groupNorm } from './group_norm.js';
export { layerNorm } from './layer_norm.js';
export { type LinearOptions, linear } from './linear.js';
export { resizeNearest, upsampleNearest2x } from './resize_nearest.js';
export { rmsNorm } from './rms_norm.js';
export { type TimestepEmbeddingOptions, timestepEmbedding } from './timestep_embedding.js';
