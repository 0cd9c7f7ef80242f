import { Tokenizer as TokenizerCore } from '@huggingface/tokenizers';
import { readJsonObject } from '../config/config.js';
import { CheckpointError } from '../errors.js';
import { is } from '../utils/check.js';
import { AddedTokenFinder } from './added_tokens.js';
import { type AddedToken, specialToken } from './tokenizer_json.js';

/** A tokenizer.json as Hugging Face's tokenizers library writes it, of whatever model: BPE (CLIP), Unigram (T5). */
export interface FastTokenizerJson {
  added_tokens: readonly ({ id: number } & AddedToken)[];
  model: object;
}

/**
 * The part that tokenizers of all models share (transformers' PreTrainedTokenizerFast): the ids of a text by its
 * tokenizer.json, without the tokens that a model puts around it.
 */
export class FastTokenizer {
  readonly #core: TokenizerCore;
  /** Added tokens to find in the text as written, and those to find in the normalized text. */
  readonly #raw: AddedTokenFinder;
  readonly #normalized: AddedTokenFinder;
  readonly #added: Map<string, number>;
  readonly #specialIds: Set<number>;
  /** Words that stand for ids of others' making, and how they are found in the normalized text. */
  readonly #words = new Map<string, readonly number[]>();
  #wordFinder: AddedTokenFinder | null = null;
  /** Characters of the longest token. */
  readonly #longest: number;

  constructor(json: FastTokenizerJson) {
    this.#core = new TokenizerCore(json, {});
    const added = json.added_tokens;
    this.#raw = new AddedTokenFinder(
      added.filter((token) => !token.normalized),
      (token) => token.content,
    );
    this.#normalized = new AddedTokenFinder(
      added.filter((token) => token.normalized),
      (token) => this.#normalize(token.content),
    );
    this.#added = new Map(added.map((token) => [token.content, token.id]));
    this.#specialIds = new Set(added.filter((token) => token.special).map((token) => token.id));
    let longest = 1;
    for (const token of this.#core.model!.tokens_to_ids.keys()) {
      longest = Math.max(longest, token.length);
    }
    this.#longest = longest;
  }

  /** @throws CheckpointError when the file is missing or no tokenizer */
  static async fromFile(path: string): Promise<FastTokenizer> {
    const json = await readJsonObject(path, CheckpointError);
    if (!is.object(json?.model) || !Array.isArray(json.added_tokens ?? [])) {
      throw new CheckpointError(`${path} expects a tokenizer, {"model": {...}, "added_tokens": [...]}`);
    }
    return new FastTokenizer({ ...json, added_tokens: json.added_tokens ?? [] } as FastTokenizerJson);
  }

  /** Lets a word stand for ids wherever it is found in a text, in whatever case the normalizer leaves it. */
  setWord(word: string, ids: readonly number[]): void {
    this.#words.set(this.#normalize(word), ids);
    this.#findWords();
  }

  removeWord(word: string): void {
    this.#words.delete(this.#normalize(word));
    this.#findWords();
  }

  hasWord(word: string): boolean {
    return this.#words.has(this.#normalize(word));
  }

  #findWords(): void {
    const tokens = [...this.#words.keys()].map((content, id) => ({ ...specialToken(content), id }));
    this.#wordFinder = tokens.length > 0 ? new AddedTokenFinder(tokens, ({ content }) => content) : null;
  }

  /** The id of a token, added or of the vocabulary. */
  idOf(token: string): number | undefined {
    return this.#added.get(token) ?? this.#core.model!.tokens_to_ids.get(token);
  }

  /**
   * The ids of a text.
   * @param limit tokens after which the rest of a longer text need not be looked at; the result may be somewhat longer
   */
  encode(text: string, limit = Infinity): number[] {
    const ids: number[] = [];
    for (const piece of this.#raw.split(text)) {
      if (ids.length >= limit) {
        break;
      }
      this.#append(ids, 'id' in piece ? [piece.id] : this.#encodeText(piece.text, limit - ids.length));
    }
    return ids;
  }

  /** The text of ids. Those that the vocabulary lacks are left out, as in Python; added tokens stand as they were added. */
  decode(ids: readonly number[], skipSpecialTokens: boolean): string {
    const known = ids.filter(
      (id) => this.#core.id_to_token(id) !== undefined && !(skipSpecialTokens && this.#specialIds.has(id)),
    );
    return known.length === 0 ? '' : this.#core.decode(known, { clean_up_tokenization_spaces: false });
  }

  #normalize(text: string): string {
    return this.#core.normalizer?.normalize(text) ?? text;
  }

  /** The ids of text in which the added tokens that are looked for as written have been found already. */
  #encodeText(text: string, limit: number): number[] {
    const ids: number[] = [];
    const words = [...this.#words.values()];
    const begin = this.#begin(this.#normalize(text), limit);
    for (const piece of this.#wordFinder?.split(begin) ?? [{ text: begin }]) {
      this.#append(ids, 'id' in piece ? words[piece.id]! : this.#encodeNormalized(piece.text));
    }
    return ids;
  }

  #encodeNormalized(text: string): number[] {
    const ids: number[] = [];
    for (const piece of this.#normalized.split(text)) {
      this.#append(ids, 'id' in piece ? [piece.id] : this.#encodePiece(piece.text));
    }
    return ids;
  }

  #encodePiece(text: string): number[] {
    const { pre_tokenizer: preTokenizer, model } = this.#core;
    const words = preTokenizer?.pre_tokenize(text) ?? [text];
    return model!
      .encode(words)
      .map((token: string) => model!.tokens_to_ids.get(token) ?? (model!.unk_token_id as number));
  }

  /**
   * As much of a text as surely has `limit` tokens, up to a space where there is one near: no token is longer than the
   * longest, and what is merged into the first half does not reach as far as the cut.
   */
  #begin(text: string, limit: number): string {
    const reach = 2 * (limit + 1) * (this.#longest + 1);
    if (text.length <= 2 * reach) {
      return text;
    }
    const space = text.indexOf(' ', reach);
    return text.slice(0, space >= 0 && space < 2 * reach ? space : reach);
  }

  #append(ids: number[], more: readonly number[]): void {
    for (const id of more) {
      ids.push(id);
    }
  }
}
