import type { AddedToken } from './tokenizer_json.js';

/** A part of a text: an added token with its id, or text between such tokens. */
export type Piece = { id: number } | { text: string };

/**
 * Finds added tokens in a text, at each place the longest (find_matches in tokenizers/src/tokenizer/added_vocabulary.rs).
 * The tokenizer core's own search also takes a whole normalized text for a token that is to be found as written only.
 */
export class AddedTokenFinder {
  readonly #tokens = new Map<string, AddedToken & { id: number }>();
  readonly #pattern: RegExp | null;

  /** @param contentOf what to look for: a token's content as written, or normalized. */
  constructor(tokens: readonly (AddedToken & { id: number })[], contentOf: (token: AddedToken) => string) {
    for (const token of tokens) {
      this.#tokens.set(contentOf(token), token);
    }
    const contents = [...this.#tokens.keys()].sort((a, b) => b.length - a.length);
    const escaped = contents.map((content) => content.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'));
    this.#pattern = escaped.length > 0 ? new RegExp(escaped.join('|'), 'gu') : null;
  }

  /** Cuts `text` at its added tokens; empty parts are left out. */
  split(text: string): Piece[] {
    const pieces: Piece[] = [];
    let done = 0;
    for (const match of this.#pattern === null ? [] : text.matchAll(this.#pattern)) {
      const token = this.#tokens.get(match[0])!;
      let start = match.index;
      let stop = start + match[0].length;
      if (token.single_word && (isWord(lastOf(text, start)) || isWord(firstOf(text, stop)))) {
        continue;
      }
      if (token.lstrip) {
        while (start > done && isSpace(text[start - 1]!)) {
          start--;
        }
      }
      if (token.rstrip) {
        while (stop < text.length && isSpace(text[stop]!)) {
          stop++;
        }
      }
      if (done < start) {
        pieces.push({ text: text.slice(done, start) });
      }
      pieces.push({ id: token.id });
      done = stop;
    }
    if (done < text.length) {
      pieces.push({ text: text.slice(done) });
    }
    return pieces;
  }
}

const isWord = (char: string): boolean => /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d]/u.test(char);
const isSpace = (char: string): boolean => /\p{White_Space}/u.test(char);

/** The character at a position, of one or two code units; '' at the end. */
const firstOf = (text: string, position: number): string => String.fromCodePoint(...codePoint(text, position));

/** The character before a position; '' at the start. */
function lastOf(text: string, position: number): string {
  const code = text.codePointAt(position - 2) ?? 0;
  return code > 0xffff ? String.fromCodePoint(code) : text.slice(Math.max(0, position - 1), position);
}

function codePoint(text: string, position: number): number[] {
  const code = text.codePointAt(position);
  return code === undefined ? [] : [code];
}
