import { InvalidArgumentError } from '../errors.js';
import { warn } from '../utils/logging.js';
import type { TokenizedBatch, TokenizeOptions, Tokenizer } from './types.js';

/** On which side of a text padding is added and tokens are cut. */
export interface Sides {
  padding: 'left' | 'right';
  truncation: 'left' | 'right';
}

/** Tokens and characters of what was cut off that are told; nobody reads more. */
const MAX_TOLD_TOKENS = 64;
const MAX_TOLD_CHARACTERS = 300;

function shorten(text: string, goesOn: boolean): string {
  const isLong = text.length > MAX_TOLD_CHARACTERS;
  return goesOn || isLong ? `${text.slice(0, MAX_TOLD_CHARACTERS)}...` : text;
}

/**
 * Encodes texts with `tokenizer.encode` and brings them to one length. A cut text keeps its start and end token,
 * and one warning in the words of diffusers says which words were lost.
 *
 * @throws InvalidArgumentError when a text is no string or `maxLength` has no room for the start and end token.
 */
export function tokenizeBatch(
  tokenizer: Tokenizer,
  texts: string | readonly string[],
  options: TokenizeOptions = {},
  sides: Sides = { padding: 'right', truncation: 'right' },
): TokenizedBatch {
  const { padding = false, maxLength = tokenizer.modelMaxLength, truncation = false } = options;
  checkOptions(padding, maxLength);
  const batch = typeof texts === 'string' ? [texts] : texts;
  const encoded = batch.map((text): Encoded => {
    const limit = truncation && sides.truncation === 'right' ? maxLength + MAX_TOLD_TOKENS : undefined;
    const ids = tokenizer.encode(text, { limit });
    return truncation && ids.length > maxLength ? cut(tokenizer, ids, maxLength, sides.truncation) : { ids, lost: '' };
  });
  const longest = Math.max(0, ...encoded.map(({ ids }) => ids.length));
  const length = padding === false ? 0 : padding === 'max_length' ? maxLength : longest;
  const padded = encoded.map(({ ids }) => pad(ids, length, tokenizer.padTokenId, sides.padding));
  const inputIds = padded.map(({ ids }) => ids);
  const attentionMask = padded.map(({ mask }) => mask);
  const truncated = encoded.map(({ lost }) => lost);
  const removed = truncated.filter((text) => text !== '');
  if (removed.length === 0) {
    return { inputIds, attentionMask };
  }
  warn(
    'The following part of your input was truncated because CLIP can only handle sequences up to ' +
      `${maxLength} tokens: ${JSON.stringify(removed)}`,
  );
  return { inputIds, attentionMask, truncated };
}

function checkOptions(padding: TokenizeOptions['padding'], maxLength: number): void {
  if (!Number.isSafeInteger(maxLength) || maxLength < 2) {
    throw new InvalidArgumentError(
      `[tokenize] maxLength expects an integer of at least 2 (start and end token), got ${maxLength}`,
    );
  }
  if (padding !== false && padding !== 'max_length' && padding !== 'longest') {
    throw new InvalidArgumentError(
      `[tokenize] padding expects 'max_length', 'longest' or false, got ${JSON.stringify(padding)}`,
    );
  }
}

interface Encoded {
  ids: number[];
  /** The words that were cut off. */
  lost: string;
}

/** Brings ids to `maxLength`, between their start and end token. */
function cut(tokenizer: Tokenizer, ids: number[], maxLength: number, side: Sides['truncation']): Encoded {
  const inner = ids.slice(1, -1);
  const room = maxLength - 2;
  const begin = side === 'left' ? inner.length - room : 0;
  const lost = side === 'left' ? inner.slice(0, begin) : inner.slice(room);
  const words = shorten(tokenizer.decode(lost.slice(0, MAX_TOLD_TOKENS)), lost.length > MAX_TOLD_TOKENS);
  return { ids: [ids[0]!, ...inner.slice(begin, begin + room), ids[ids.length - 1]!], lost: words };
}

/** Fills up to `length`; the mask is 1 for what was there. */
function pad(ids: number[], length: number, padId: number, side: Sides['padding']): { ids: number[]; mask: number[] } {
  const missing = Math.max(0, length - ids.length);
  const fill = (value: number, count = missing) => new Array<number>(count).fill(value);
  const join = (own: number[], filling: number[]) => (side === 'left' ? [...filling, ...own] : [...own, ...filling]);
  return { ids: join(ids, fill(padId)), mask: join(fill(1, ids.length), fill(0)) };
}
