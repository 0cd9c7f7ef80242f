import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { CheckpointError, ConfigError, InvalidArgumentError } from '../../src/errors.js';
import { buildTokenizerJson, CLIPTokenizer } from '../../src/tokenizers/index.js';
import { setWarningHandler, type WarningHandler } from '../../src/utils/logging.js';
import { loadSafetensors } from '../support/safetensors.js';

const TINY = 'weights/tiny-shapes/tokenizer';
const CLIP_2K = 'test/fixtures/tokenizers/clip-2k';

interface Kind {
  'special_tokens_map.json': object;
  'tokenizer_config.json': object;
  pad_id: number;
  vocab_size: number;
  star: number[];
  long: number[];
}
interface Cases {
  kinds: Record<string, Kind>;
  texts: string[];
  ids: { sd1: number[][] } & Record<string, Record<string, number[]>>;
  decoded: string[];
}
const cases: Cases = JSON.parse(readFileSync('test/fixtures/tokenizers/clip_2k_cases.json', 'utf8'));
const vocab: Record<string, number> = JSON.parse(readFileSync(join(CLIP_2K, 'vocab.json'), 'utf8'));
const merges = readFileSync(join(CLIP_2K, 'merges.txt'), 'utf8')
  .split('\n')
  .slice(1, -1)
  .map((line) => line.split(' ') as [string, string]);

let dir: string;
let warnings: string[];
let previous: WarningHandler;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'tokenizer-'));
  warnings = [];
  previous = setWarningHandler((message) => warnings.push(message));
});
afterEach(() => {
  setWarningHandler(previous);
  rmSync(dir, { recursive: true });
});

/** A tokenizer directory of the fixture vocabulary; an object is written as JSON, null leaves a file out. */
function directory(files: Record<string, object | string | null> = {}): string {
  for (const name of ['vocab.json', 'merges.txt']) {
    cpSync(join(CLIP_2K, name), join(dir, name));
  }
  for (const [name, content] of Object.entries(files)) {
    if (content === null) {
      rmSync(join(dir, name));
    } else {
      writeFileSync(join(dir, name), typeof content === 'string' ? content : JSON.stringify(content));
    }
  }
  return dir;
}

const withKind = (kind: string) =>
  directory({
    'special_tokens_map.json': cases.kinds[kind]!['special_tokens_map.json'],
    'tokenizer_config.json': cases.kinds[kind]!['tokenizer_config.json'],
  });

describe('ids are those of transformers', () => {
  test.each(Object.keys(cases.kinds))('special tokens as in %s', async (kind) => {
    const tokenizer = await CLIPTokenizer.fromPretrained(withKind(kind));
    const expected = cases.texts.map((_, i) => (kind === 'sd1' ? undefined : cases.ids[kind]![i]) ?? cases.ids.sd1[i]);
    expect(cases.texts.map((text) => tokenizer.encode(text))).toEqual(expected);
  });

  test.each(Object.entries(cases.kinds))('padding and cutting as in %s', async (kind, expected) => {
    const tokenizer = await CLIPTokenizer.fromPretrained(withKind(kind));
    expect(tokenizer.padTokenId).toBe(expected.pad_id);
    expect(tokenizer.vocabSize).toBe(expected.vocab_size);
    const batch = tokenizer.tokenize(['a star', 'photo, '.repeat(50)], {
      padding: 'max_length',
      maxLength: 77,
      truncation: true,
    });
    expect(batch.inputIds).toEqual([expected.star, expected.long]);
    expect(batch.attentionMask.map((mask) => mask.reduce((a, b) => a + b))).toEqual([
      tokenizer.encode('a star').length,
      77,
    ]);
  });

  test('decoding', async () => {
    const tokenizer = await CLIPTokenizer.fromPretrained(withKind('sd1'));
    expect(cases.ids.sd1.map((ids) => tokenizer.decode(ids, { skipSpecialTokens: true }))).toEqual(cases.decoded);
    expect(tokenizer.decode(tokenizer.encode('A Red, star!'))).toBe('<|startoftext|>a red , star ! <|endoftext|>');
    expect(tokenizer.decode([])).toBe('');
    expect(tokenizer.decode([99999])).toBe('');
  });

  test('the shipped checkpoint', async () => {
    const tokenizer = await CLIPTokenizer.fromPretrained(TINY);
    expect(tokenizer).toMatchObject({
      modelMaxLength: 77,
      bosTokenId: 656,
      eosTokenId: 657,
      padTokenId: 657,
      vocabSize: 658,
    });
    expect(tokenizer.encode('a <|endoftext|> b')).toEqual([656, 320, 657, 321, 657]);
    expect(tokenizer.encode('ΟΔΟΣ')).toEqual([656, 138, 123, 138, 112, 138, 123, 139, 481, 657]);
    expect(tokenizer.encode('a b', { addSpecialTokens: false })).toEqual([320, 321]);
  });
});

test.each(['ddim_negative', 'default', 'dpm_wide', 'euler_ancestral', 'euler_batch'])(
  'the ids that the pipeline of diffusers drew %s from',
  async (name) => {
    const tokenizer = await CLIPTokenizer.fromPretrained(TINY);
    const { tensors, metadata } = loadSafetensors(`test/fixtures/tiny-shapes/${name}.safetensors`);
    const prompts: string[] = JSON.parse(metadata.prompt!.replaceAll("'", '"'));
    const options = { padding: 'max_length', truncation: true } as const;
    expect(tokenizer.tokenize(prompts, options).inputIds.flat()).toEqual(Array.from(tensors.input_ids!.data, Number));
    const negative = prompts.map(() => metadata.negative!);
    expect(tokenizer.tokenize(negative, options).inputIds.flat()).toEqual(
      Array.from(tensors.negative_ids!.data, Number),
    );
  },
);

describe('tokenize', () => {
  test('says what was cut, once for the batch', async () => {
    const tokenizer = await CLIPTokenizer.fromPretrained(TINY);
    const long = `${'a '.repeat(74)}big Red STAR`;
    const batch = tokenizer.tokenize(['a', long], { padding: 'max_length', truncation: true });
    expect(batch.truncated).toEqual(['', 'red star']);
    expect(batch.inputIds[1]!.slice(-2)).toEqual([tokenizer.encode('big')[1], tokenizer.eosTokenId]);
    expect(warnings).toEqual([
      'The following part of your input was truncated because CLIP can only handle sequences up to 77 tokens: ["red star"]',
    ]);
  });

  test('says nothing when everything fits', async () => {
    const tokenizer = await CLIPTokenizer.fromPretrained(TINY);
    const batch = tokenizer.tokenize('a '.repeat(75), { padding: 'max_length', truncation: true });
    expect(batch).toEqual({ inputIds: [[656, ...Array(75).fill(320), 657]], attentionMask: [Array(77).fill(1)] });
    expect(warnings).toEqual([]);
  });

  test('pads to the longest, or not at all', async () => {
    const tokenizer = await CLIPTokenizer.fromPretrained(TINY);
    expect(tokenizer.tokenize(['a', 'b c'], { padding: 'longest' })).toEqual({
      inputIds: [
        [656, 320, 657, 657],
        [656, 321, 322, 657],
      ],
      attentionMask: [
        [1, 1, 1, 0],
        [1, 1, 1, 1],
      ],
    });
    expect(tokenizer.tokenize(['a', 'b c']).inputIds).toEqual([
      [656, 320, 657],
      [656, 321, 322, 657],
    ]);
  });

  test('pads and cuts on the left when the checkpoint says so', async () => {
    const tokenizer = new CLIPTokenizer({ vocab, merges, paddingSide: 'left', truncationSide: 'left', padToken: '!' });
    const [a, b] = tokenizer.encode('a b', { addSpecialTokens: false });
    const { bosTokenId: start, eosTokenId: end } = tokenizer;
    const batch = tokenizer.tokenize(['a', 'a a b'], { padding: 'max_length', maxLength: 4, truncation: true });
    expect(batch.inputIds).toEqual([
      [0, start, a, end],
      [start, a, b, end],
    ]);
    expect(batch.attentionMask[0]).toEqual([0, 1, 1, 1]);
    expect(batch.truncated).toEqual(['', 'a']);
  });

  test.each(['star ', 'a', '!', '<|endoftext|>', 'a, (b) ', '星'])(
    'a million characters of %j give the ids of their beginning, and a short warning',
    async (unit) => {
      const tokenizer = await CLIPTokenizer.fromPretrained(TINY);
      const encode = jest.spyOn(tokenizer, 'encode');
      const options = { padding: 'max_length', truncation: true } as const;
      const { inputIds, truncated } = tokenizer.tokenize(unit.repeat(1_000_000 / unit.length), options);
      expect((encode.mock.results[0]!.value as number[]).length).toBeLessThan(40_000);
      expect(inputIds[0]).toEqual(tokenizer.tokenize(unit.repeat(2000), options).inputIds[0]);
      expect(truncated![0]!.length).toBeLessThan(400);
      expect(truncated![0]).toMatch(/\.\.\.$/);
      expect(warnings[0]!.length).toBeLessThan(600);
    },
  );

  test('refuses what it cannot do', async () => {
    const tokenizer = await CLIPTokenizer.fromPretrained(TINY);
    expect(() => tokenizer.encode(5 as unknown as string)).toThrow(InvalidArgumentError);
    expect(() => tokenizer.tokenize('a', { maxLength: 1 })).toThrow(
      /maxLength expects an integer of at least 2.*got 1/,
    );
    expect(() => tokenizer.tokenize('a', { padding: 'max' as 'longest' })).toThrow(/padding expects .*got "max"/);
  });

  test('a very long text without a space', async () => {
    const tokenizer = await CLIPTokenizer.fromPretrained(TINY);
    const star = tokenizer.encode('starstar').slice(1, -2);
    const ids = tokenizer.encode('star'.repeat(50_000), { addSpecialTokens: false });
    expect(ids.slice(0, star.length * 1000)).toEqual(Array(1000).fill(star).flat());
    expect(tokenizer.decode(ids)).toBe('star'.repeat(50_000));
  });
});

describe('fromPretrained', () => {
  test('takes tokenizer.json alone, in both ways of writing merges, and rather than vocab.json', async () => {
    const expected = await CLIPTokenizer.fromPretrained(directory());
    const json = buildTokenizerJson(vocab, merges);
    const pairs = { ...json, model: { ...json.model, merges } };
    for (const written of [json, pairs]) {
      const files = { 'tokenizer.json': written, 'vocab.json': '{', 'merges.txt': null };
      const tokenizer = await CLIPTokenizer.fromPretrained(directory(files));
      expect(cases.texts.map((text) => tokenizer.encode(text))).toEqual(
        cases.texts.map((text) => expected.encode(text)),
      );
    }
  });

  test('takes line ends of Windows and a merges.txt without a version', async () => {
    const text = merges.map((pair) => pair.join(' ')).join('\r\n');
    const tokenizer = await CLIPTokenizer.fromPretrained(directory({ 'merges.txt': text }));
    expect(tokenizer.encode(cases.texts[5]!)).toEqual(cases.ids.sd1[5]);
  });

  test('adds the tokens of added_tokens.json after the vocabulary', async () => {
    const added = { '<cat>': cases.kinds.sd1!.vocab_size, '<Dog>': cases.kinds.sd1!.vocab_size + 1 };
    const tokenizer = await CLIPTokenizer.fromPretrained(directory({ 'added_tokens.json': added }));
    expect(tokenizer.encode('a<cat> <DOG>', { addSpecialTokens: false })).toEqual([vocab['a</w>'], 2235, 2236]);
  });

  test('falls back to 77 where the length is unknown', async () => {
    const config = { model_max_length: 1e30 };
    expect((await CLIPTokenizer.fromPretrained(directory({ 'tokenizer_config.json': config }))).modelMaxLength).toBe(
      77,
    );
    expect((await CLIPTokenizer.fromPretrained(directory({ 'tokenizer_config.json': {} }))).modelMaxLength).toBe(77);
  });

  const damaged: [string, Record<string, object | string | null>, typeof CheckpointError, RegExp][] = [
    [
      'no vocabulary',
      { 'vocab.json': null },
      CheckpointError,
      /vocab\.json' does not exist; a tokenizer directory has/,
    ],
    ['no merges', { 'merges.txt': null }, CheckpointError, /merges\.txt' does not exist/],
    ['a cut vocabulary', { 'vocab.json': '{"a": 0,' }, CheckpointError, /vocab\.json is not valid JSON: /],
    [
      'a git-lfs pointer',
      { 'vocab.json': 'version https://git-lfs.github.com/spec/v1' },
      CheckpointError,
      /git lfs pull/,
    ],
    ['a list', { 'vocab.json': [1] }, CheckpointError, /vocab\.json expects a JSON object, got \[1\]/],
    ['an empty vocabulary', { 'vocab.json': {} }, CheckpointError, /expects a vocabulary/],
    [
      'an id that is no integer',
      { 'vocab.json': { a: 1.5 } },
      CheckpointError,
      /id of "a" expects an integer from 0, got 1\.5/,
    ],
    ['an id twice', { 'vocab.json': { a: 1, b: 1 } }, CheckpointError, /"a" and "b" have the same id 1/],
    ['a merge of three', { 'merges.txt': 'a b c' }, CheckpointError, /merges\.txt': line 1 expects two tokens/],
    ['other merges', { 'merges.txt': 'zz zz' }, CheckpointError, /merge "zz zz" needs the token "zz"/],
    [
      'another tokenizer',
      { 'tokenizer.json': { model: { type: 'Unigram' } } },
      CheckpointError,
      /expects a CLIP tokenizer.*"Unigram"/,
    ],
    ['a broken config', { 'tokenizer_config.json': '' }, ConfigError, /tokenizer_config\.json is not valid JSON/],
    [
      'a token that is none',
      { 'tokenizer_config.json': { pad_token: 7 } },
      ConfigError,
      /pad_token expects a token.*got 7/,
    ],
    [
      'a length that is none',
      { 'tokenizer_config.json': { model_max_length: '77' } },
      ConfigError,
      /model_max_length expects/,
    ],
    [
      'added tokens that are no list',
      { 'tokenizer.json': { ...buildTokenizerJson(vocab, merges), added_tokens: { id: 1, content: 'x' } } },
      CheckpointError,
      /added_tokens expects a list of tokens, got an object/,
    ],
    [
      'an added token that is null',
      { 'tokenizer.json': { ...buildTokenizerJson(vocab, merges), added_tokens: [null] } },
      ConfigError,
      /added_tokens expects a token.*got null/,
    ],
    [
      'an added token without an id',
      { 'tokenizer.json': { ...buildTokenizerJson(vocab, merges), added_tokens: [{ content: 'x' }] } },
      CheckpointError,
      /the id of "x" expects a whole number, got undefined/,
    ],
    [
      'an added_tokens_decoder that is a list',
      { 'tokenizer_config.json': { added_tokens_decoder: 7 } },
      ConfigError,
      /added_tokens_decoder expects an object/,
    ],
    [
      'a side that is none',
      { 'tokenizer_config.json': { padding_side: 'top' } },
      ConfigError,
      /padding_side expects 'left' or 'right'/,
    ],
    [
      'a broken token map',
      { 'special_tokens_map.json': 'null' },
      ConfigError,
      /special_tokens_map\.json expects a JSON object/,
    ],
  ];
  test.each(damaged)('%s is an error that teaches', async (_, files, type, message) => {
    const error = await CLIPTokenizer.fromPretrained(directory(files)).catch((e) => e);
    expect(error).toBeInstanceOf(type);
    expect(error.message).toMatch(message);
  });

  test('bytes that are no text', async () => {
    writeFileSync(join(directory(), 'merges.txt'), Uint8Array.of(0xff, 0xfe, 0x61));
    await expect(CLIPTokenizer.fromPretrained(dir)).rejects.toThrow(/merges\.txt is damaged: it is not UTF-8/);
  });

  test('points to the tokenizer folder of a checkpoint', async () => {
    mkdirSync(join(dir, 'tokenizer'));
    await expect(CLIPTokenizer.fromPretrained(dir)).rejects.toThrow(`did you mean '${join(dir, 'tokenizer')}'?`);
    await expect(CLIPTokenizer.fromPretrained(join(dir, 'none'))).rejects.toThrow(/is not a directory/);
  });
});

test('savePretrained writes what fromPretrained reads', async () => {
  const texts = cases.texts;
  for (const kind of Object.keys(cases.kinds)) {
    const tokenizer = await CLIPTokenizer.fromPretrained(withKind(kind));
    await tokenizer.savePretrained(join(dir, kind));
    const again = await CLIPTokenizer.fromPretrained(join(dir, kind));
    expect(texts.map((text) => again.encode(text))).toEqual(texts.map((text) => tokenizer.encode(text)));
    const options = { padding: 'max_length', truncation: true } as const;
    expect(again.tokenize(texts, options)).toEqual(tokenizer.tokenize(texts, options));
  }
});
