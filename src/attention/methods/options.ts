import { InvalidArgumentError } from '../../errors.js';
import type { Implementation } from '../../ops/index.js';
import type { FreeMemory } from './free_memory.js';

/** The classes' names; every one computes the same attention, they differ in memory and time. */
const NAMES = [
  'classic',
  'sliced',
  'split-v1',
  'doggettx',
  'invokeai',
  'sub-quadratic',
  'memory-efficient',
  'sdp',
  'sdp-no-mem',
  'auto',
] as const;

export type AttentionName = (typeof NAMES)[number];

const ALIASES: Readonly<Record<string, AttentionName>> = { xformers: 'memory-efficient', none: 'classic' };

/** Every name that an attention option takes. */
export const ATTENTION_NAMES: readonly string[] = [...NAMES, ...Object.keys(ALIASES)];

/** Slices of attention: rows of batch x heads at a time; 'auto' is half of the heads, 'max' a single row. */
export type SliceSize = number | 'auto' | 'max';

/** An attention class and what it can be told; each class reads the fields that are meant for it. */
export interface AttentionOptions {
  name: AttentionName;
  /** sliced. Default 'auto'. */
  sliceSize?: SliceSize;
  /** memory-efficient: which implementation of the op computes it. Default 'auto'. */
  attentionOp?: Implementation;
  /** sub-quadratic: queries at a time. Default 1024. */
  queryChunkSize?: number;
  /** sub-quadratic: keys at a time. Default floor(sqrt(keys)), or all keys below the threshold. */
  kvChunkSize?: number;
  /** sub-quadratic: the least number of keys at a time; by default as many as fill the threshold, 0 for no least. */
  kvChunkSizeMin?: number;
  /** sub-quadratic: score matrices above this percentage of the free memory are chunked. Default 70; 0 chunks always. */
  chunkThreshold?: number;
  /** sub-quadratic: recompute the chunks in the backward pass. Default true. */
  useCheckpoint?: boolean;
  /** Bytes that are free, asked before each attention; by default those of the backend or, failing that, of the system. */
  freeMemory?: FreeMemory;
}

/** What users write: a name of ATTENTION_NAMES, or an object with one. */
export type AttentionSetting = string | (Omit<AttentionOptions, 'name'> & { name: string });

const COUNTS = ['queryChunkSize', 'kvChunkSize'] as const;
const IMPLEMENTATIONS: readonly string[] = ['auto', 'native', 'composed'];

function checkOptions(options: AttentionOptions): void {
  const bad = (field: string, expected: string, value: unknown) =>
    new InvalidArgumentError(`[attention] ${field} must be ${expected}, got ${JSON.stringify(value)}`);
  const { sliceSize, attentionOp, kvChunkSizeMin, chunkThreshold } = options;
  const isCount = (value: unknown) => Number.isInteger(value) && (value as number) >= 1;
  if (sliceSize !== undefined && sliceSize !== 'auto' && sliceSize !== 'max' && !isCount(sliceSize)) {
    throw bad('sliceSize', "'auto', 'max' or a positive integer", sliceSize);
  }
  for (const field of COUNTS) {
    if (options[field] !== undefined && !isCount(options[field])) {
      throw bad(field, 'a positive integer', options[field]);
    }
  }
  if (kvChunkSizeMin !== undefined && kvChunkSizeMin !== 0 && !isCount(kvChunkSizeMin)) {
    throw bad('kvChunkSizeMin', 'a positive integer, or 0 for none', kvChunkSizeMin);
  }
  if (chunkThreshold !== undefined && !(chunkThreshold >= 0 && chunkThreshold <= 100)) {
    throw bad('chunkThreshold', 'a percentage from 0 to 100', chunkThreshold);
  }
  if (attentionOp !== undefined && !IMPLEMENTATIONS.includes(attentionOp)) {
    throw bad('attentionOp', "'auto', 'native' or 'composed'", attentionOp);
  }
}

/**
 * The attention to use: the option when given, else what USE_MEMORY_EFFICIENT_ATTENTION says (0: classic, 1:
 * memory-efficient), else 'auto'.
 *
 * @throws InvalidArgumentError for a name that is not one of ATTENTION_NAMES, and for options out of range
 */
export function resolveAttention(setting?: AttentionSetting): AttentionOptions {
  if (setting === undefined) {
    const variable = process.env.USE_MEMORY_EFFICIENT_ATTENTION;
    const on = variable !== '0' && variable?.toLowerCase() !== 'false';
    return { name: variable ? (on ? 'memory-efficient' : 'classic') : 'auto' };
  }
  const options = typeof setting === 'string' ? { name: setting } : setting;
  if (!ATTENTION_NAMES.includes(options.name)) {
    throw new InvalidArgumentError(
      `[attention] '${options.name}' is not known, use one of: ${ATTENTION_NAMES.join(', ')}`,
    );
  }
  const resolved = { ...options, name: ALIASES[options.name] ?? (options.name as AttentionName) };
  checkOptions(resolved);
  return resolved;
}
