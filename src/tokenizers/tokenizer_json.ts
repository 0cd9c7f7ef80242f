/** A token that is found in the text as it is and never split, as `tokenizers.AddedToken`. */
export interface AddedToken {
  content: string;
  /** Left out when decoding with `skipSpecialTokens`. */
  special: boolean;
  /** Looked for in the normalized (lower-cased) text instead of the text as written. */
  normalized: boolean;
  lstrip: boolean;
  rstrip: boolean;
  single_word: boolean;
}

export interface TokenizerJsonOptions {
  /** Default '<|startoftext|>'. */
  bosToken?: string;
  /** Default '<|endoftext|>'. */
  eosToken?: string;
  /** Default '<|endoftext|>'. */
  unkToken?: string;
  /** Default: the start, end and unknown token, special. Those that `vocab` lacks get the ids after its last. */
  addedTokens?: readonly AddedToken[];
}

/** The part of Hugging Face's tokenizer.json that describes a CLIP tokenizer. */
export interface TokenizerJson {
  version: '1.0';
  truncation: null;
  padding: null;
  added_tokens: ({ id: number } & AddedToken)[];
  normalizer: object;
  pre_tokenizer: object;
  post_processor: object;
  decoder: object;
  model: {
    type: 'BPE';
    dropout: null;
    unk_token: string;
    continuing_subword_prefix: string;
    end_of_word_suffix: string;
    fuse_unk: boolean;
    byte_fallback: boolean;
    vocab: Record<string, number>;
    merges: string[];
  };
}

/** Splits text into words, single digits, contractions and runs of punctuation (transformers/models/clip/tokenization_clip.py). */
const WORDS = "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";

/** What the byte-level step splits by (tokenizers/src/pre_tokenizers/byte_level.rs). */
const BYTE_LEVEL = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/**
 * Makes the tokenizer.json of a CLIP tokenizer from the contents of vocab.json and merges.txt, giving the ids of
 * Python's CLIPTokenizer in Python's and JavaScript's tokenizers library alike. Two things are spelled out
 * because JavaScript does them differently: capital sigma becomes a small one wherever it stands (JavaScript alone
 * has a final form), and the byte-level step's own split is written as a rule, since its built-in one takes
 * U+FEFF for whitespace.
 *
 * @param vocab token to id, vocab.json.
 * @param merges pairs in order of priority, merges.txt.
 */
export function buildTokenizerJson(
  vocab: Record<string, number>,
  merges: readonly (readonly [string, string])[],
  options: TokenizerJsonOptions = {},
): TokenizerJson {
  const { bosToken = '<|startoftext|>', eosToken = '<|endoftext|>', unkToken = '<|endoftext|>' } = options;
  const added = options.addedTokens ?? [...new Set([bosToken, eosToken, unkToken])].map(specialToken);
  let next = Object.keys(vocab).length;
  const addedTokens = added.map((token) => ({
    id: Object.hasOwn(vocab, token.content) ? vocab[token.content]! : next++,
    ...token,
  }));
  const idOf = (content: string) =>
    addedTokens.find((token) => token.content === content)?.id ?? vocab[content] ?? vocab[unkToken];

  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokens,
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'NFC' },
        { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
        { type: 'Replace', pattern: { String: 'Σ' }, content: 'σ' },
        { type: 'Lowercase' },
      ],
    },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: WORDS }, behavior: 'Removed', invert: true },
        { type: 'Split', pattern: { Regex: BYTE_LEVEL }, behavior: 'Isolated', invert: false },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: {
      type: 'RobertaProcessing',
      sep: [eosToken, idOf(eosToken)],
      cls: [bosToken, idOf(bosToken)],
      trim_offsets: false,
      add_prefix_space: false,
    },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: unkToken,
      continuing_subword_prefix: '',
      end_of_word_suffix: '</w>',
      fuse_unk: false,
      byte_fallback: false,
      vocab,
      // Written as text, not as pairs: transformers.js before 3.0 and older tokenizers read nothing else.
      merges: merges.map((pair) => pair.join(' ')),
    },
  };
}

/** A special token given by its text alone: found in the text as written. */
export function specialToken(content: string): AddedToken {
  return { content, special: true, normalized: false, lstrip: false, rstrip: false, single_word: false };
}
