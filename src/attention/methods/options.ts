import { env } from '#platform';
import type { FreeMemory } from '../../backends/traits.js';
import { InvalidArgumentError } from '../../errors.js';
import type { Implementation } from '../../ops/index.js';
import { checkNames, expectThat, is, oneOf } from '../../utils/check.js';

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

const ALIASES = { xformers: 'memory-efficient', none: 'classic' } as const satisfies Record<string, AttentionName>;
/** Other names of classes. */
export type AttentionAlias = keyof typeof ALIASES;

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

/** What users write: a name of ATTENTION_NAMES, which editors complete, or an object with one. */
export type AttentionSetting =
  | AttentionName
  | AttentionAlias
  | (string & {})
  | (Omit<AttentionOptions, 'name'> & { name: AttentionName | AttentionAlias | (string & {}) });

const COUNTS = ['queryChunkSize', 'kvChunkSize'] as const;
const IMPLEMENTATIONS: readonly Implementation[] = ['auto', 'native', 'composed'];
const FIELDS: readonly (keyof AttentionOptions)[] = [
  'name',
  'sliceSize',
  'attentionOp',
  ...COUNTS,
  'kvChunkSizeMin',
  'chunkThreshold',
  'useCheckpoint',
  'freeMemory',
];

function checkOptions(options: AttentionOptions): void {
  checkNames('attention', Object.keys(options), FIELDS);
  const expect = (field: keyof AttentionOptions, fits: (value: unknown) => boolean, expected: string) =>
    expectThat(options[field] === undefined || fits(options[field]), 'attention', field, expected, options[field]);
  const isSlice = (value: unknown) => value === 'auto' || value === 'max' || is.count(value);
  expect('sliceSize', isSlice, "'auto', 'max' or a positive integer");
  for (const field of COUNTS) {
    expect(field, is.count, 'a positive integer');
  }
  expect('kvChunkSizeMin', is.whole, 'a positive integer, or 0 for none');
  const isPercentage = (value: unknown) => is.number(value) && value >= 0 && value <= 100;
  expect('chunkThreshold', isPercentage, 'a percentage from 0 to 100');
  expect('attentionOp', (value) => is.oneOf(IMPLEMENTATIONS, value), oneOf(IMPLEMENTATIONS));
  expect('useCheckpoint', is.boolean, 'true or false');
  expect('freeMemory', is.function, 'a function that gives bytes');
}

const withoutAlias = (name: string): AttentionName =>
  name in ALIASES ? ALIASES[name as AttentionAlias] : (name as AttentionName);

/**
 * The attention to use: the option when given, else what USE_MEMORY_EFFICIENT_ATTENTION says (0: classic, 1:
 * memory-efficient), else 'auto'.
 *
 * @throws InvalidArgumentError for a name that is not one of ATTENTION_NAMES, and for options out of range
 */
export function resolveAttention(setting?: AttentionSetting): AttentionOptions {
  if (setting === undefined) {
    const variable = env('USE_MEMORY_EFFICIENT_ATTENTION');
    const on = variable !== '0' && variable?.toLowerCase() !== 'false';
    return { name: variable ? (on ? 'memory-efficient' : 'classic') : 'auto' };
  }
  const options = typeof setting === 'string' ? { name: setting } : setting;
  if (!ATTENTION_NAMES.includes(options.name)) {
    throw new InvalidArgumentError(
      `[attention] '${options.name}' is not known, use one of: ${ATTENTION_NAMES.join(', ')}`,
    );
  }
  const resolved = { ...options, name: withoutAlias(options.name) };
  checkOptions(resolved);
  return resolved;
}
