import type { AttentionMethod } from '../methods/attention_method.js';
import { MemoryEfficientAttention } from '../methods/memory_efficient.js';
import type { AttentionOptions, AttentionSetting } from '../methods/options.js';
import { createAttentionMethod } from '../methods/registry.js';
import { CrossAttention } from './cross_attention.js';
import { MemoryEfficientCrossAttention } from './memory_efficient_cross_attention.js';
import type { AttentionProjections } from './projections.js';

/** The layer with those weights and that method. */
export function attentionLayer(projections: AttentionProjections, method: AttentionMethod): CrossAttention {
  return method instanceof MemoryEfficientAttention
    ? new MemoryEfficientCrossAttention(projections, method)
    : new CrossAttention(projections, method);
}

/** Builds the chosen attention over the given weights. */
export function createAttention(
  setting: AttentionSetting | AttentionOptions,
  projections: AttentionProjections,
): CrossAttention {
  return attentionLayer(projections, createAttentionMethod(setting, projections.heads));
}
