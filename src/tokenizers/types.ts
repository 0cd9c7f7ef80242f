/** How a batch of texts is brought to one length. */
export interface TokenizeOptions {
  /** 'max_length' fills to `maxLength`, 'longest' to the longest of the batch; default false: every text keeps its length. */
  padding?: 'max_length' | 'longest' | false;
  /** Tokens per text, start and end included; default `modelMaxLength`. */
  maxLength?: number;
  /** Cuts longer texts to `maxLength`, keeping the end token, and warns about what was cut; default false. */
  truncation?: boolean;
}

export interface TokenizedBatch {
  /** One list of ids for each text. */
  inputIds: number[][];
  /** 1 for a token of the text, 0 for padding; same shape as `inputIds`. */
  attentionMask: number[][];
  /**
   * For each text, what was cut off its end ('' when nothing), itself cut with '...' when it is long; absent when no text
   * was cut.
   */
  truncated?: string[];
}

export interface EncodeOptions {
  /** Puts the start and end tokens around the text; default true. */
  addSpecialTokens?: boolean;
  /** Tokens that are needed: the rest of a longer text may be left out; default all. */
  limit?: number;
}

export interface DecodeOptions {
  /** Leaves start, end, padding and other special tokens out; default false. */
  skipSpecialTokens?: boolean;
}

/** What pipelines need of a tokenizer. `CLIPTokenizer` is one; `asTokenizer` makes one of a transformers.js tokenizer. */
export interface Tokenizer {
  /** Longest sequence that the text encoder takes, start and end token included (77 for CLIP). */
  readonly modelMaxLength: number;
  readonly bosTokenId: number;
  readonly eosTokenId: number;
  readonly padTokenId: number;
  /** Tokens of the vocabulary without those added to it; unknown for some tokenizer objects. */
  readonly vocabSize?: number;

  /** The ids of one text, neither padded nor cut. */
  encode(text: string, options?: EncodeOptions): number[];
  /** The ids of one or many texts, padded and cut as asked. */
  tokenize(texts: string | readonly string[], options?: TokenizeOptions): TokenizedBatch;
  /** The text of ids: lower-cased, words separated by single spaces. */
  decode(ids: readonly number[], options?: DecodeOptions): string;
}
