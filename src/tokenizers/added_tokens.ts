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
      if (token.single_word && (endsWithWord(text.slice(0, start)) || startsWithWord(text.slice(stop)))) {
        continue;
      }
      if (token.lstrip) {
        start = Math.max(done, start - /\p{White_Space}*$/u.exec(text.slice(done, start))![0].length);
      }
      if (token.rstrip) {
        stop += /^\p{White_Space}*/u.exec(text.slice(stop))![0].length;
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

const WORD = '[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d]';
const endsWithWord = (text: string) => new RegExp(`${WORD}$`, 'u').test(text);
const startsWithWord = (text: string) => new RegExp(`^${WORD}`, 'u').test(text);
