import { direct, type KernelDefinition } from './definition.js';

/** The kernels of src/ops: what each computes stands there, beside its composed twin. */
export const fused: KernelDefinition[] = [
  direct('MemoryEfficientAttention', ['q', 'k', 'v', 'bias'], 'several'),
  direct('MemoryEfficientAttentionGrad', ['dy', 'q', 'k', 'v', 'out', 'lse', 'bias'], 'several'),
  direct('MemoryEfficientAttentionPacked', ['qkv', 'bias'], 'several'),
  direct('MemoryEfficientAttentionPackedGrad', ['dy', 'qkv', 'out', 'lse', 'bias']),
  direct('PackedQkv', ['x', 'q', 'k', 'v', 'bq', 'bk', 'bv']),
  direct('GroupNorm', ['x', 'gamma', 'beta']),
  direct('LayerNorm', ['x', 'gamma', 'beta']),
  direct('RmsNorm', ['x', 'gamma']),
  direct('Linear', ['x', 'weight', 'bias', 'residual']),
  direct('Conv2dFused', ['x', 'filter', 'bias', 'residual', 'timeEmbedding']),
  direct('TimestepEmbedding', ['timesteps']),
];
