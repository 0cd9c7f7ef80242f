import { InvalidArgumentError } from '../errors.js';
import type { AttentionProjections } from './attention_projections.js';
import { CrossAttention } from './cross_attention.js';
import { MemoryEfficientCrossAttention } from './memory_efficient_cross_attention.js';

type AttentionClass = new (projections: AttentionProjections) => CrossAttention;

const CLASSES = {
  classic: CrossAttention,
  'memory-efficient': MemoryEfficientCrossAttention,
} satisfies Record<string, AttentionClass>;

const ALIASES: Record<string, keyof typeof CLASSES> = { xformers: 'memory-efficient', auto: 'memory-efficient' };

/** Every name that an attention option takes. */
export const ATTENTION_NAMES: readonly string[] = [...Object.keys(CLASSES), ...Object.keys(ALIASES)];

export type AttentionName = keyof typeof CLASSES | 'xformers' | 'auto';

/**
 * The attention to use: the option when given, else what USE_MEMORY_EFFICIENT_ATTENTION says (1: memory-efficient,
 * 0: classic), else 'auto'.
 *
 * @throws InvalidArgumentError for a name that is not one of ATTENTION_NAMES
 */
export function resolveAttention(option?: string): AttentionName {
  const variable = process.env.USE_MEMORY_EFFICIENT_ATTENTION;
  const name = option ?? (variable ? (variable === '0' ? 'classic' : 'memory-efficient') : 'auto');
  if (!ATTENTION_NAMES.includes(name)) {
    throw new InvalidArgumentError(`[attention] '${name}' is not known, use one of: ${ATTENTION_NAMES.join(', ')}`);
  }
  return name as AttentionName;
}

/** Builds the named attention over the given weights. */
export function createAttention(name: AttentionName, projections: AttentionProjections): CrossAttention {
  const key = (ALIASES[name] ?? name) as keyof typeof CLASSES;
  return new CLASSES[key](projections);
}
