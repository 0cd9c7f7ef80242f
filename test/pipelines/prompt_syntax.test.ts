import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../src/errors.js';
import {
  applyEmphasis,
  padPromptChunks,
  parsePromptAttention,
  tokenizeWeightedPrompt,
  type WeightedText,
} from '../../src/pipelines/common/prompt_syntax.js';
import { CLIPTokenizer } from '../../src/tokenizers/index.js';
import { readTokenizerFiles } from '../../src/tokenizers/tokenizer_files.js';
import { relativeL2 } from '../support/compare.js';

describe('prompts of a million characters', () => {
  const long: [string, number][] = [
    ['BREAK '.repeat(160_000), 320_001],
    [`${'('.repeat(200)}${'a\\(b\\)'.repeat(100_000)}`, 1],
    [`${'(a:1'.repeat(200)}${':1'.repeat(400_000)})`, 199],
    ['\\'.repeat(1_000_000), 1],
    [`:${' '.repeat(1_000_000)}`, 1],
  ];
  test.each(long.map(([prompt, parts]) => [prompt.slice(0, 8), prompt, parts] as const))(
    '%s...',
    (_, prompt, parts) => {
      expect(parsePromptAttention(prompt)).toHaveLength(parts);
    },
  );

  test('brackets without end, chunks without end and the error about a weight are bounded', async () => {
    expect(() => parsePromptAttention('('.repeat(1_000_000))).toThrow(InvalidArgumentError);
    const tokenizer = await CLIPTokenizer.fromPretrained('weights/tiny-shapes/tokenizer');
    expect(() => tokenizeWeightedPrompt(tokenizer, 'BREAK '.repeat(160_000))).toThrow('at most 1000 chunks of 75');
    const weight = `(a:1.2.3)${'b'.repeat(10_000)}`;
    expect(() => parsePromptAttention(weight)).toThrow(/^.{50,300}$/s);
  });
});

describe('parsePromptAttention', () => {
  const cases: [string, WeightedText[]][] = [
    ['', [['', 1]]],
    ['normal text', [['normal text', 1]]],
    [
      'an (important) word',
      [
        ['an ', 1],
        ['important', 1.1],
        [' word', 1],
      ],
    ],
    ['(unbalanced', [['unbalanced', 1.1]]],
    ['[[unbalanced', [['unbalanced', (1 / 1.1) * (1 / 1.1)]]],
    ['unopened) text]', [['unopened) text]', 1]]],
    ['\\(literal\\]', [['(literal]', 1]]],
    ['\\(a\\) \\[b\\] c\\\\d', [['(a) [b] c\\d', 1]]],
    [
      '(\\(a\\):1.5) \\(b:1.5)',
      [
        ['(a)', 1.5],
        [' (b:1.5)', 1],
      ],
    ],
    ['a\\b', [['ab', 1]]],
    ['(unnecessary)(parens)', [['unnecessaryparens', 1.1]]],
    [
      'a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).',
      [
        ['a ', 1],
        ['house', 1.5730000000000004],
        [' ', 1.1],
        ['on', 1],
        [' a ', 1.1],
        ['hill', 0.55],
        [', sun, ', 1.1],
        ['sky', 1.4641000000000006],
        ['.', 1.1],
      ],
    ],
    ['(word:1.3)', [['word', 1.3]]],
    ['(word : +.5 )', [['word ', 0.5]]],
    ['(word:-1)', [['word', -1]]],
    ['((word))', [['word', 1.1 * 1.1]]],
    ['[word]', [['word', 1 / 1.1]]],
    ['[word:0.5]', [['word:0.5', 1 / 1.1]]],
    ['time 10:30, ratio 16:9)', [['time 10:30, ratio 16:9)', 1]]],
    ['(a:b:1.2)', [['a:b', 1.2]]],
    ['()', [['', 1]]],
    [
      'sky BREAK sea',
      [
        ['sky', 1],
        ['BREAK', -1],
        ['sea', 1],
      ],
    ],
    [
      'BREAK\n BREAK',
      [
        ['', 1],
        ['BREAK', -1],
        ['', 1],
        ['BREAK', -1],
        ['', 1],
      ],
    ],
    ['BREAKFAST éBREAK BREAK_ break', [['BREAKFAST éBREAK BREAK_ break', 1]]],
    [
      '(sky BREAK sea)',
      [
        ['sky', 1.1],
        ['BREAK', -1.1],
        ['sea', 1.1],
      ],
    ],
  ];
  test.each(cases)('%j', (prompt, expected) => {
    expect(parsePromptAttention(prompt)).toEqual(expected);
  });

  test.each(['(a:1.2.3)', '(a:.)'])('%s has no number as weight', (prompt) => {
    expect(() => parsePromptAttention(prompt)).toThrow(InvalidArgumentError);
    expect(() => parsePromptAttention(prompt)).toThrow(/a weight expects a number, as in \(text:1\.3\), got "/);
  });
});

describe('tokenizeWeightedPrompt', () => {
  let sd1: CLIPTokenizer;
  let sd2: CLIPTokenizer;
  let a: number;
  let star: number;
  let comma: number;
  const start = 656;
  const end = 657;

  beforeAll(async () => {
    sd1 = await CLIPTokenizer.fromPretrained('weights/tiny-shapes/tokenizer');
    const { vocab, merges } = await readTokenizerFiles('weights/tiny-shapes/tokenizer');
    sd2 = new CLIPTokenizer({ vocab, merges, padToken: '!' });
    [a, star, comma] = sd1.encode('a star,', { addSpecialTokens: false }) as [number, number, number];
  });

  const times = <T>(n: number, value: T): T[] => new Array<T>(n).fill(value);

  test('a short prompt is one chunk, each token with its weight', () => {
    const { chunks } = tokenizeWeightedPrompt(sd1, 'a (star:1.3) [a]');
    expect(chunks).toEqual([
      { ids: [start, a, star, a, ...times(73, end)], weights: [1, 1, 1.3, 1 / 1.1, ...times(73, 1)] },
    ]);
  });

  test('an empty prompt is one chunk, that of the tokenizer', () => {
    expect(tokenizeWeightedPrompt(sd1, '').chunks).toEqual([
      { ids: [start, ...times(76, end)], weights: times(77, 1) },
    ]);
    const empty = sd2.tokenize('', { padding: 'max_length' }).inputIds[0];
    expect(tokenizeWeightedPrompt(sd2, '').chunks).toEqual([{ ids: empty, weights: times(77, 1) }]);
  });

  test("pads with the tokenizer's padding after the end token", () => {
    expect(tokenizeWeightedPrompt(sd2, 'a (star)').chunks).toEqual([
      { ids: [start, a, star, end, ...times(73, 0)], weights: [1, 1, 1.1, ...times(74, 1)] },
    ]);
  });

  test('an end token in the prompt ends it where padding is another token', () => {
    expect(tokenizeWeightedPrompt(sd2, 'a <|endoftext|> (star)').chunks).toEqual([
      { ids: [start, a, end, ...times(74, 0)], weights: [1, 1, 1, 1.1, ...times(73, 1)] },
    ]);
    const [chunk] = tokenizeWeightedPrompt(sd1, 'a <|endoftext|> star').chunks;
    expect(chunk!.ids).toEqual([start, a, end, star, ...times(73, end)]);
  });

  test('75 tokens are one chunk, 76 are two', () => {
    expect(tokenizeWeightedPrompt(sd1, 'a '.repeat(75)).chunks.map((chunk) => chunk.ids)).toEqual([
      [start, ...times(75, a), end],
    ]);
    const { chunks } = tokenizeWeightedPrompt(sd1, `${'a '.repeat(75)}(star:2)`);
    expect(chunks).toEqual([
      { ids: [start, ...times(75, a), end], weights: times(77, 1) },
      { ids: [start, star, ...times(75, end)], weights: [1, 2, ...times(75, 1)] },
    ]);
  });

  test('text after a comma among the last 20 tokens moves to the next chunk', () => {
    const { chunks } = tokenizeWeightedPrompt(sd1, `${'a '.repeat(55)}, (${'star '.repeat(21)}:1.2)`);
    expect(chunks).toEqual([
      { ids: [start, ...times(55, a), comma, ...times(20, end)], weights: times(77, 1) },
      { ids: [start, ...times(21, star), ...times(55, end)], weights: [1, ...times(21, 1.2), ...times(55, 1)] },
    ]);
  });

  test('a comma 21 tokens back, or commaPaddingBacktrack: 0, moves nothing', () => {
    const far = tokenizeWeightedPrompt(sd1, `${'a '.repeat(54)}, ${'star '.repeat(21)}`).chunks;
    expect(far.map((chunk) => chunk.ids)).toEqual([
      [start, ...times(54, a), comma, ...times(20, star), end],
      [start, star, ...times(75, end)],
    ]);
    const off = tokenizeWeightedPrompt(sd1, `${'a '.repeat(70)}, ${'star '.repeat(5)}`, {
      commaPaddingBacktrack: 0,
    }).chunks;
    expect(off.map((chunk) => chunk.ids)).toEqual([
      [start, ...times(70, a), comma, ...times(4, star), end],
      [start, star, ...times(75, end)],
    ]);
  });

  test('a comma that would be the 76th token begins the next chunk', () => {
    const { chunks } = tokenizeWeightedPrompt(sd1, `${'a '.repeat(70)}, ${'a '.repeat(4)}, star`);
    expect(chunks.map((chunk) => chunk.ids)).toEqual([
      [start, ...times(70, a), comma, ...times(4, a), end],
      [start, comma, star, ...times(74, end)],
    ]);
  });

  test('BREAK begins a new chunk', () => {
    const { chunks } = tokenizeWeightedPrompt(sd1, 'a BREAK (star) BREAK');
    expect(chunks).toEqual([
      { ids: [start, a, ...times(75, end)], weights: times(77, 1) },
      { ids: [start, star, ...times(75, end)], weights: [1, 1.1, ...times(75, 1)] },
    ]);
    expect(tokenizeWeightedPrompt(sd1, 'BREAK star').chunks.map((chunk) => chunk.ids)).toEqual([
      [start, ...times(76, end)],
      [start, star, ...times(75, end)],
    ]);
  });

  test('prompts are brought to one number of chunks', () => {
    const long = tokenizeWeightedPrompt(sd2, 'a BREAK star').chunks;
    const short = tokenizeWeightedPrompt(sd2, 'a').chunks;
    const [first, second] = padPromptChunks(sd2, [long, short]);
    expect(first).toEqual(long);
    expect(second).toEqual([...short, ...tokenizeWeightedPrompt(sd2, '').chunks]);
  });
});

describe('applyEmphasis', () => {
  beforeAll(async () => {
    await tf.setBackend('cpu');
  });
  let before: number;
  beforeEach(() => {
    before = tf.memory().numTensors;
  });
  afterEach(() => {
    expect(tf.memory().numTensors).toBe(before);
  });

  const [chunks, tokens, depth] = [2, 77, 5];
  const numbers = Float32Array.from({ length: chunks * tokens * depth }, (_, i) => Math.sin(i * 12.9898) + 0.3);

  test('multiplies each token, then restores the mean of each chunk', () => {
    const weights = [0, 1].map((chunk) =>
      Array.from({ length: tokens }, (_, t) => 1 + 0.01 * ((t * (chunk + 3)) % 40)),
    );
    const expected: number[] = [];
    for (let c = 0; c < chunks; c++) {
      const chunk = numbers.slice(c * tokens * depth, (c + 1) * tokens * depth);
      const weighted = [...chunk].map((x, i) => x * weights[c]![Math.floor(i / depth)]!);
      const sum = (values: Iterable<number>) => [...values].reduce((p, q) => p + q, 0);
      const scale = sum(chunk) / sum(weighted);
      expected.push(...weighted.map((x) => x * scale));
    }
    tf.tidy(() => {
      const embeddings = tf.tensor3d(numbers, [chunks, tokens, depth]);
      for (const given of [weights, tf.tensor2d(weights)]) {
        const result = applyEmphasis(embeddings, given);
        expect(result.shape).toEqual([chunks, tokens, depth]);
        expect(relativeL2(result.dataSync(), expected)).toBeLessThan(1e-6);
      }
    });
  });

  test('a small example by hand', () => {
    tf.tidy(() => {
      const embeddings = tf.tensor3d([1, 3, 2, 2, 4, 4, 0, 0], [2, 2, 2]);
      const result = applyEmphasis(embeddings, [
        [1, 2],
        [0.5, 1],
      ]);
      // Chunk 1: [1 3 4 4], mean 3 instead of 2. Chunk 2: [2 2 0 0], mean 1 instead of 2.
      const third = 2 / 3;
      expect(relativeL2(result.dataSync(), [third, 2, 4 * third, 4 * third, 4, 4, 0, 0])).toBeLessThan(1e-6);
    });
  });

  test('weights of 1 leave every number as it is', () => {
    tf.tidy(() => {
      const embeddings = tf.tensor3d(numbers, [chunks, tokens, depth]);
      const result = applyEmphasis(embeddings, [new Array(tokens).fill(1), new Array(tokens).fill(1)]);
      expect(result.dataSync()).toEqual(numbers);
    });
  });

  test('weights of another shape are refused', () => {
    tf.tidy(() => {
      const embeddings = tf.zeros<tf.Rank.R3>([1, 77, 4]);
      expect(() => applyEmphasis(embeddings, [[1, 1]])).toThrow(
        /expect the shape \[1, 77\] of the embeddings, got \[1,2\]/,
      );
    });
  });
});
