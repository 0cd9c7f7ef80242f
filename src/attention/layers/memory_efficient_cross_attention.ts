import { MemoryEfficientAttention } from '../methods/memory_efficient.js';
import { CrossAttention } from './cross_attention.js';
import type { AttentionProjections } from './projections.js';

/**
 * CrossAttention by one op that never holds the matrix of scores: what BasicTransformerBlock builds with attention
 * 'memory-efficient' (ldm/modules/attention.py, where xFormers computes it).
 */
export class MemoryEfficientCrossAttention extends CrossAttention {
  constructor(projections: AttentionProjections, method: MemoryEfficientAttention = new MemoryEfficientAttention()) {
    super(projections, method);
  }
}
