import { InvalidArgumentError } from '../errors.js';
import { tokenizeBatch } from './tokenize_batch.js';
import type { DecodeOptions, EncodeOptions, TokenizedBatch, TokenizeOptions, Tokenizer } from './types.js';

/** What is used of the result of transformers.js' `AutoTokenizer.from_pretrained` (@xenova/ and @huggingface/transformers). */
export interface TransformersJsTokenizer {
  (
    text: string,
    options: { padding: false; truncation: false; add_special_tokens: boolean; return_tensor: false },
  ): { input_ids: number[] };
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
  model_max_length?: number;
  pad_token_id?: number;
  padding_side?: string;
  model?: { vocab?: ArrayLike<unknown> };
  get_vocab?(): Map<string, number>;
}

export interface AsTokenizerOptions {
  /** The id to pad with, where the object does not know it: transformers.js overlooks special_tokens_map.json. */
  padTokenId?: number;
  /** The longest sequence, where the object does not know it; default 77. */
  modelMaxLength?: number;
}

/**
 * Gives `object` back when it is a `Tokenizer`, or adapts a tokenizer of transformers.js. The ids are those that the
 * object makes; padding and cutting are done here, because transformers.js cuts the end token away too.
 *
 * @throws InvalidArgumentError when the object is neither.
 */
export function asTokenizer(object: unknown, options: AsTokenizerOptions = {}): Tokenizer {
  if (isTokenizer(object)) {
    return object;
  }
  if (typeof object === 'function' && typeof (object as Partial<TransformersJsTokenizer>).decode === 'function') {
    return new TransformersJsAdapter(object as TransformersJsTokenizer, options);
  }
  const got = describe(object);
  throw new InvalidArgumentError(
    `[asTokenizer] expects a CLIPTokenizer or a tokenizer of transformers.js (await AutoTokenizer.from_pretrained(...)), got ${got}`,
  );
}

function describe(object: unknown): string {
  if (object instanceof Promise) {
    return 'a Promise; await it first';
  }
  if (typeof object !== 'object' || object === null) {
    return object === null ? 'null' : `a ${typeof object}`;
  }
  return `an object with ${Object.keys(object).slice(0, 5).join(', ') || 'no fields'}`;
}

function isTokenizer(object: unknown): object is Tokenizer {
  const candidate = object as Partial<Tokenizer> | null | undefined;
  return (
    typeof candidate?.encode === 'function' &&
    typeof candidate.tokenize === 'function' &&
    typeof candidate.decode === 'function' &&
    [candidate.modelMaxLength, candidate.bosTokenId, candidate.eosTokenId, candidate.padTokenId].every(Number.isInteger)
  );
}

class TransformersJsAdapter implements Tokenizer {
  readonly modelMaxLength: number;
  readonly bosTokenId: number;
  readonly eosTokenId: number;
  readonly padTokenId: number;
  readonly vocabSize?: number;
  readonly #object: TransformersJsTokenizer;

  constructor(object: TransformersJsTokenizer, options: AsTokenizerOptions) {
    this.#object = object;
    const empty = this.encode('');
    if (empty.length !== 2) {
      throw new InvalidArgumentError(
        `[asTokenizer] expects a tokenizer that puts a start and an end token around the text, as CLIP's; ` +
          `the ids of '' are [${empty}]`,
      );
    }
    this.bosTokenId = empty[0]!;
    this.eosTokenId = empty[1]!;
    this.padTokenId = options.padTokenId ?? object.pad_token_id ?? this.eosTokenId;
    const max = options.modelMaxLength ?? object.model_max_length ?? 77;
    this.modelMaxLength = max > 1e6 ? 77 : max;
    const size = object.get_vocab?.().size ?? object.model?.vocab?.length;
    if (size !== undefined) {
      this.vocabSize = size;
    }
  }

  encode(text: string, options: EncodeOptions = {}): number[] {
    const addSpecialTokens = options.addSpecialTokens ?? true;
    const encoded = this.#object(text, {
      padding: false,
      truncation: false,
      add_special_tokens: addSpecialTokens,
      return_tensor: false,
    });
    return Array.from(encoded.input_ids, Number);
  }

  tokenize(texts: string | readonly string[], options?: TokenizeOptions): TokenizedBatch {
    const padding = this.#object.padding_side === 'left' ? 'left' : 'right';
    return tokenizeBatch(this, texts, options, { padding, truncation: 'right' });
  }

  decode(ids: readonly number[], options: DecodeOptions = {}): string {
    if (ids.length === 0) {
      return '';
    }
    const skip = options.skipSpecialTokens ?? false;
    return this.#object.decode([...ids], { skip_special_tokens: skip, clean_up_tokenization_spaces: false }).trim();
  }
}
