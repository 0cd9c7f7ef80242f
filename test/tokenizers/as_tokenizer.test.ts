import { describe, expect, test } from '@jest/globals';
import { InvalidArgumentError } from '../../src/errors.js';
import { asTokenizer, CLIPTokenizer } from '../../src/tokenizers/index.js';
import { setWarningHandler } from '../../src/utils/logging.js';

interface CallOptions {
  text_pair?: string | null;
  add_special_tokens?: boolean;
  padding?: boolean | 'max_length';
  truncation?: boolean | null;
  max_length?: number | null;
  return_tensor?: boolean;
}

const START = 8;
const END = 9;

/**
 * Behaves as AutoTokenizer.from_pretrained's result in @xenova/transformers 2.17 and @huggingface/transformers 4.3 does:
 * a function with fields, single texts unwrapped, the end token lost when it cuts, an error for no ids to decode.
 * Words are single letters a to g, ids 0 to 6.
 */
function transformersJs(fields: object) {
  const one = (text: string, options: CallOptions) => {
    const words = text.split(' ').filter((word) => word !== '');
    const ids = words.map((word) => 'abcdefg'.indexOf(word));
    return options.add_special_tokens === false ? ids : [START, ...ids, END];
  };
  const call = (text: string | string[], options: CallOptions = {}) => {
    if (options.return_tensor !== false) {
      throw new Error('a Tensor of BigInt64Array');
    }
    const max = Math.min(options.max_length ?? 77, 77);
    const encoded = (Array.isArray(text) ? text : [text]).map((t) => {
      const ids = one(t, options);
      ids.length = options.truncation ? Math.min(ids.length, max) : ids.length;
      return options.padding === 'max_length' ? [...ids, ...Array(max - ids.length).fill(END)] : ids;
    });
    const ones = encoded.map((ids) => ids.map(() => 1));
    return Array.isArray(text)
      ? { input_ids: encoded, attention_mask: ones }
      : { input_ids: encoded[0], attention_mask: ones[0] };
  };
  const decode = (
    ids: number[],
    options: { skip_special_tokens?: boolean; clean_up_tokenization_spaces?: boolean },
  ) => {
    if (!Array.isArray(ids) || ids.length === 0) {
      throw Error('token_ids must be a non-empty array of integers.');
    }
    const shown = options.skip_special_tokens ? ids.filter((id) => id < START) : ids;
    const text = shown.map((id) => (id < START ? `${'abcdefg'[id]} ` : `<${id}>`)).join('');
    return options.clean_up_tokenization_spaces === false ? text : text.replaceAll(' a', 'a');
  };
  return Object.assign(call, { encode: one, decode, padding_side: 'right', ...fields });
}

const xenova = () => transformersJs({ model_max_length: 77, pad_token_id: END, model: { vocab: new Array(10) } });
const huggingface = () =>
  transformersJs({
    model_max_length: Number.POSITIVE_INFINITY,
    bos_token_id: START,
    eos_token_id: END,
    pad_token_id: 7,
    get_vocab: () => new Map([...'abcdefg!<>'].map((token, id) => [token, id])),
  });

describe('a tokenizer of transformers.js', () => {
  test('tells its special tokens, limits and size', () => {
    const common = { modelMaxLength: 77, bosTokenId: START, eosTokenId: END, vocabSize: 10 };
    expect(asTokenizer(xenova())).toMatchObject({ ...common, padTokenId: END });
    expect(asTokenizer(huggingface())).toMatchObject({ ...common, padTokenId: 7 });
    expect(asTokenizer(xenova(), { padTokenId: 7, modelMaxLength: 40 })).toMatchObject({
      padTokenId: 7,
      modelMaxLength: 40,
    });
  });

  test.each([
    ['@xenova/transformers', xenova, END],
    ['@huggingface/transformers', huggingface, 7],
  ])('encodes, decodes and pads: %s', (_, make, pad) => {
    const tokenizer = asTokenizer(make());
    expect(tokenizer.encode('a c')).toEqual([START, 0, 2, END]);
    expect(tokenizer.encode('a c', { addSpecialTokens: false })).toEqual([0, 2]);
    expect(tokenizer.decode([START, 1, 0, END])).toBe('<8>b a <9>');
    expect(tokenizer.decode([START, 1, 0, END], { skipSpecialTokens: true })).toBe('b a');
    expect(tokenizer.decode([])).toBe('');
    expect(tokenizer.tokenize(['a', 'b c'], { padding: 'max_length', maxLength: 5 })).toEqual({
      inputIds: [
        [START, 0, END, pad, pad],
        [START, 1, 2, END, pad],
      ],
      attentionMask: [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
      ],
    });
  });

  test('keeps the end token of a text that is cut, and warns', () => {
    const warnings: string[] = [];
    const previous = setWarningHandler((message) => warnings.push(message));
    try {
      const batch = asTokenizer(xenova()).tokenize(`${'a '.repeat(75)}b c`, {
        padding: 'max_length',
        truncation: true,
      });
      expect(batch.inputIds).toEqual([[START, ...Array(75).fill(0), END]]);
      expect(batch.truncated).toEqual(['b c']);
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).toContain('up to 77 tokens: ["b c"]');
    } finally {
      setWarningHandler(previous);
    }
  });
});

test('ours stays as it is', async () => {
  const tokenizer = await CLIPTokenizer.fromPretrained('weights/tiny-shapes/tokenizer');
  expect(asTokenizer(tokenizer)).toBe(tokenizer);
});

test.each([
  ['null', null, /got null$/],
  ['a name', 'openai/clip', /got a string$/],
  ['a plain object', { encode: 1 }, /got an object with encode$/],
  ['a promise', Promise.resolve(), /got a Promise; await it first$/],
  ['a function', () => 0, /got a function$/],
])('%s is refused', (_, object, message) => {
  expect(() => asTokenizer(object)).toThrow(InvalidArgumentError);
  expect(() => asTokenizer(object)).toThrow(message);
});

test('a tokenizer without start and end tokens is refused', () => {
  const bare = Object.assign(() => ({ input_ids: [] }), { decode: () => '' });
  expect(() => asTokenizer(bare)).toThrow(/puts a start and an end token around the text/);
});
