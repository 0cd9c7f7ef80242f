import { files } from '#platform';
import { InvalidArgumentError } from '../errors.js';
import { isReplacedBySaving } from '../loaders/checkpoint_files.js';
import { joinPath } from '../utils/paths.js';
import { clipVocabulary } from './clip_vocabulary.js';
import { FastTokenizer } from './fast_tokenizer.js';
import { type Sides, tokenizeBatch } from './tokenize_batch.js';
import { readTokenizerFiles, type TokenizerFiles } from './tokenizer_files.js';
import { type AddedToken, buildTokenizerJson, specialToken } from './tokenizer_json.js';
import type { DecodeOptions, EncodeOptions, TokenizedBatch, TokenizeOptions, Tokenizer } from './types.js';

/** What a CLIPTokenizer is made of; all but the vocabulary and the merges has CLIP's values as default. */
export type CLIPTokenizerOptions = Pick<TokenizerFiles, 'vocab' | 'merges'> & Partial<TokenizerFiles>;

/**
 * CLIP's byte-level BPE tokenizer (transformers/models/clip/tokenization_clip.py), with the ids of
 * `CLIPTokenizer.from_pretrained` of Python's transformers 5. Text is brought to NFC, runs of whitespace become one
 * space, letters small ones; words, single digits, contractions and runs of punctuation are encoded one by one.
 *
 * The tokenizer that OpenAI published differs in what it does before: it repairs text with ftfy, resolves HTML
 * entities, and, in transformers' former Python-only class without ftfy, drops control characters and separates CJK
 * characters. transformers no longer does any of it, and neither does this class. Which characters are letters is for
 * the JavaScript engine's Unicode tables to say and how they compose too: ids can differ for letters that the newest
 * version of Unicode added and for combining marks younger than the tables of Python's tokenizers.
 */
export class CLIPTokenizer implements Tokenizer {
  readonly modelMaxLength: number;
  readonly bosTokenId: number;
  readonly eosTokenId: number;
  readonly padTokenId: number;
  readonly vocabSize: number;
  readonly #fast: FastTokenizer;
  readonly #files: TokenizerFiles;
  readonly #sides: Sides;

  constructor(options: CLIPTokenizerOptions) {
    const bosToken = options.bosToken ?? '<|startoftext|>';
    const eosToken = options.eosToken ?? '<|endoftext|>';
    const unkToken = options.unkToken ?? '<|endoftext|>';
    const padToken = options.padToken ?? '<|endoftext|>';
    const named = [...new Set([bosToken, eosToken, unkToken, padToken])];
    const addedTokens: AddedToken[] = [...(options.addedTokens ?? [])];
    addedTokens.push(
      ...named.filter((content) => !addedTokens.some((token) => token.content === content)).map(specialToken),
    );
    const { modelMaxLength = 77, paddingSide = 'right', truncationSide = 'right' } = options;
    const { vocab, merges } = options;
    this.#files = {
      ...{ vocab, merges, bosToken, eosToken, unkToken, padToken, addedTokens },
      ...{ modelMaxLength, paddingSide, truncationSide },
    };
    const json = buildTokenizerJson(vocab, merges, { bosToken, eosToken, unkToken, addedTokens });
    this.#fast = new FastTokenizer(json);
    this.#sides = { padding: paddingSide, truncation: truncationSide };
    this.modelMaxLength = modelMaxLength;
    this.bosTokenId = this.#fast.idOf(bosToken)!;
    this.eosTokenId = this.#fast.idOf(eosToken)!;
    this.padTokenId = this.#fast.idOf(padToken)!;
    this.vocabSize = Object.keys(vocab).length;
  }

  /**
   * Reads a checkpoint's `tokenizer` directory: tokenizer.json, or vocab.json with merges.txt, and the special tokens
   * (padding among them: end-of-text in Stable Diffusion 1.x, "!" in 2.x) of tokenizer_config.json and
   * special_tokens_map.json.
   *
   * @throws CheckpointError, ConfigError when a file is missing or damaged, saying which and what it should hold.
   */
  static async fromPretrained(dir: string): Promise<CLIPTokenizer> {
    await files.finishSaves(dir);
    return new CLIPTokenizer(await readTokenizerFiles(dir));
  }

  /**
   * CLIP's own tokenizer, whose vocabulary comes with this package.
   *
   * @param padToken end-of-text in Stable Diffusion 1.x, "!" in 2.x and for OpenCLIP's text encoder of XL
   */
  static async standard(padToken = '<|endoftext|>'): Promise<CLIPTokenizer> {
    return new CLIPTokenizer({ ...(await clipVocabulary()), padToken });
  }

  /** Whether a word is one token, of the vocabulary or added. */
  hasToken(word: string): boolean {
    return this.#fast.hasWord(word) || this.#fast.idOf(word) !== undefined;
  }

  /** Lets a word stand for ids that a text encoder has given its embeddings, as textual inversion does; it is not saved. */
  addToken(word: string, ids: readonly number[]): void {
    this.#fast.setWord(word, ids);
  }

  removeToken(word: string): void {
    this.#fast.removeWord(word);
  }

  encode(text: string, options: EncodeOptions = {}): number[] {
    if (typeof text !== 'string') {
      throw new InvalidArgumentError(
        `[CLIPTokenizer] text expects a string, got ${text === null ? null : typeof text}`,
      );
    }
    const ids = this.#fast.encode(text, options.limit);
    return (options.addSpecialTokens ?? true) ? [this.bosTokenId, ...ids, this.eosTokenId] : ids;
  }

  tokenize(texts: string | readonly string[], options?: TokenizeOptions): TokenizedBatch {
    return tokenizeBatch(this, texts, options, this.#sides);
  }

  /** Ids that the vocabulary lacks are left out, as in Python; added tokens stand as they were added. */
  decode(ids: readonly number[], options: DecodeOptions = {}): string {
    return strip(this.#fast.decode(ids, options.skipSpecialTokens ?? false));
  }

  /** Writes vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json, as Python's diffusers reads them. */
  async savePretrained(dir: string): Promise<void> {
    const { vocab, merges, modelMaxLength, paddingSide, truncationSide, ...tokens } = this.#files;
    const special = {
      bos_token: tokens.bosToken,
      eos_token: tokens.eosToken,
      unk_token: tokens.unkToken,
      pad_token: tokens.padToken,
    };
    const { added_tokens: added } = buildTokenizerJson(vocab, [], tokens);
    const config = {
      tokenizer_class: 'CLIPTokenizer',
      model_max_length: modelMaxLength,
      padding_side: paddingSide,
      truncation_side: truncationSide,
      add_prefix_space: false,
      do_lower_case: true,
      errors: 'replace',
      ...special,
      added_tokens_decoder: Object.fromEntries(added.map(({ id, ...token }) => [id, token])),
    };
    const asJson = (value: object) => `${JSON.stringify(value, null, 2)}\n`;
    const fill = async (staging: string) => {
      await files.write(joinPath(staging, 'vocab.json'), JSON.stringify(vocab));
      const lines = ['#version: 0.2', ...merges.map((pair) => pair.join(' ')), ''];
      await files.write(joinPath(staging, 'merges.txt'), lines.join('\n'));
      await files.write(joinPath(staging, 'tokenizer_config.json'), asJson(config));
      await files.write(joinPath(staging, 'special_tokens_map.json'), asJson(special));
    };
    await files.save(dir, fill, (path) => isReplacedBySaving(path));
  }
}

/** Python's str.strip: unlike trim, it knows U+0085 and U+001C to U+001F as whitespace and U+FEFF not. */
function strip(text: string): string {
  const isSpace = (char: string) => /\p{White_Space}/u.test(char) || (char >= '\x1c' && char <= '\x1f');
  let start = 0;
  let end = text.length;
  while (start < end && isSpace(text[start]!)) {
    start++;
  }
  while (end > start && isSpace(text[end - 1]!)) {
    end--;
  }
  return text.slice(start, end);
}
