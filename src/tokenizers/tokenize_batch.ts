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

  const batch = typeof texts === 'string' ? [texts] : [...texts];
  const cut = batch.map(() => '');
  const encoded = batch.map((text, i) => {
    const limit = truncation && sides.truncation === 'right' ? maxLength + MAX_TOLD_TOKENS : undefined;
    const ids = tokenizer.encode(text, { limit });
    if (!truncation || ids.length <= maxLength) {
      return ids;
    }
    const inner = ids.slice(1, -1);
    const room = maxLength - 2;
    const fromLeft = sides.truncation === 'left';
    const kept = fromLeft ? inner.slice(inner.length - room) : inner.slice(0, room);
    const lost = fromLeft ? inner.slice(0, inner.length - room) : inner.slice(room);
    cut[i] = shorten(tokenizer.decode(lost.slice(0, MAX_TOLD_TOKENS)), lost.length > MAX_TOLD_TOKENS);
    return [ids[0]!, ...kept, ids[ids.length - 1]!];
  });

  const length = padding === 'max_length' ? maxLength : Math.max(0, ...encoded.map((ids) => ids.length));
  const inputIds: number[][] = [];
  const attentionMask: number[][] = [];
  for (const ids of encoded) {
    const missing = padding === false ? 0 : Math.max(0, length - ids.length);
    const pad = new Array<number>(missing).fill(tokenizer.padTokenId);
    const unattended = new Array<number>(missing).fill(0);
    const attended = new Array<number>(ids.length).fill(1);
    inputIds.push(sides.padding === 'left' ? [...pad, ...ids] : [...ids, ...pad]);
    attentionMask.push(sides.padding === 'left' ? [...unattended, ...attended] : [...attended, ...unattended]);
  }

  const removed = cut.filter((text) => text !== '');
  if (removed.length === 0) {
    return { inputIds, attentionMask };
  }
  warn(
    'The following part of your input was truncated because CLIP can only handle sequences up to ' +
      `${maxLength} tokens: ${JSON.stringify(removed)}`,
  );
  return { inputIds, attentionMask, truncated: cut };
}
