import { beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-wasm';
import { applyTokenMerging, removeTokenMerging, TokenMerging } from '../../src/attention/index.js';
import { MergedTokens } from '../../src/attention/token_merging/merged_tokens.js';
import { BasicTransformerBlock, type TransformerInputs } from '../../src/models/index.js';
import { initRandom, Weights } from '../../src/nn/index.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { relativeL2 } from '../support/compare.js';

type Tokens = number[][];

const dot = (a: number[], b: number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
const cosine = (a: number[], b: number[]) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));

/** Which merged group each token of one picture belongs to, straight from the paper's description. */
function groups(tokens: Tokens, destinations: number[], count: number): Map<number, number[]> {
  const sources = tokens.map((_, i) => i).filter((i) => !destinations.includes(i));
  const edges = sources.map((source) => {
    const similarity = destinations.map((d) => cosine(tokens[source]!, tokens[d]!));
    const best = Math.max(...similarity);
    return { source, best, to: destinations[similarity.indexOf(best)]! };
  });
  edges.sort((a, b) => b.best - a.best);
  const result = new Map<number, number[]>(destinations.map((d) => [d, [d]]));
  edges.forEach(({ source, to }, i) => {
    if (i < count) {
      result.get(to)!.push(source);
    } else {
      result.set(source, [source]);
    }
  });
  return result;
}

/** Every token replaced by the mean of its group: what merging and then unmerging gives. */
function mergedAndBack(tokens: Tokens, by: Tokens, destinations: number[], count: number): Tokens {
  const out: Tokens = [];
  for (const members of groups(by, destinations, count).values()) {
    const mean = tokens[0]!.map((_, c) => members.reduce((sum, i) => sum + tokens[i]![c]!, 0) / members.length);
    for (const i of members) {
      out[i] = mean;
    }
  }
  return out;
}

/** Destinations of an unmirrored map: the cell's chosen token in each whole sy x sx cell. */
function cellDestinations(height: number, width: number, sx: number, sy: number, within: (cell: number) => number) {
  const out: number[] = [];
  let cell = 0;
  for (let y = 0; y + sy <= height; y += sy) {
    for (let x = 0; x + sx <= width; x += sx) {
      const choice = within(cell++);
      out.push((y + Math.floor(choice / sx)) * width + x + (choice % sx));
    }
  }
  return out.sort((a, b) => a - b);
}

function block(dim = 12, seed = 3): BasicTransformerBlock {
  const root = Weights.root();
  const made = new BasicTransformerBlock(root.at('block'), {
    dim,
    heads: 3,
    dimHead: dim / 3,
    crossAttentionDim: 5,
    attention: 'classic',
  });
  initRandom(root.parameters, seed);
  return made;
}

beforeAll(async () => {
  await tf.setBackend('wasm');
});

describe('MergedTokens', () => {
  const cases = [
    { batch: 1, height: 4, width: 6, sx: 2, sy: 2, count: 7 },
    { batch: 3, height: 7, width: 9, sx: 2, sy: 3, count: 20 },
    { batch: 2, height: 5, width: 5, sx: 2, sy: 2, count: 1000 },
    { batch: 2, height: 8, width: 8, sx: 4, sy: 2, count: 1 },
  ];
  test.each(cases)('averages the most similar sources into their destinations: %j', (c) => {
    tf.tidy(() => {
      const tokens = c.height * c.width;
      const destinations = cellDestinations(c.height, c.width, c.sx, c.sy, (cell) => cell % (c.sx * c.sy));
      const metric = tf.randomNormal([c.batch, tokens, 6], 0, 1, 'float32', 5) as tf.Tensor3D;
      const x = tf.randomNormal([c.batch, tokens, 11], 0, 1, 'float32', 6) as tf.Tensor3D;
      const merged = MergedTokens.match(metric, destinations, c.count);
      const small = merged.merge(x);
      expect(small.shape).toEqual([c.batch, Math.max(tokens - c.count, destinations.length), 11]);
      const [by, values] = [metric.arraySync() as Tokens[], x.arraySync() as Tokens[]];
      const expected = values.map((image, b) => mergedAndBack(image, by[b]!, destinations, c.count));
      expect(relativeL2(merged.unmerge(small).dataSync(), expected.flat(2))).toBeLessThan(1e-6);
    });
  });

  test('copies tokens that are not merged bit for bit, and a token of zeros does no harm', () => {
    tf.tidy(() => {
      const x = tf.concat([tf.zeros([1, 1, 4]), tf.randomNormal([1, 15, 4], 0, 1, 'float32', 1)], 1) as tf.Tensor3D;
      const merged = MergedTokens.match(x, [3, 9], 0);
      expect(merged.unmerge(merged.merge(x)).dataSync()).toEqual(x.dataSync());
    });
  });

  test('gradients are those of averaging and copying', () => {
    tf.tidy(() => {
      const x = tf.randomNormal([2, 12, 3], 0, 1, 'float32', 2) as tf.Tensor3D;
      const destinations = [0, 2, 8];
      const merged = MergedTokens.match(x, destinations, 5);
      const dy = tf.randomNormal([2, 12, 3], 0, 1, 'float32', 3);
      const f = (y: tf.Tensor) => merged.unmerge(merged.merge(y as tf.Tensor3D));
      // averaging within groups is symmetric, so the gradient is the same averaging of dy
      const [metric, given] = [x.arraySync() as Tokens[], dy.arraySync() as Tokens[]];
      const expected = given.map((image, b) => mergedAndBack(image, metric[b]!, destinations, 5));
      expect(relativeL2(tf.grad(f)(x, dy).dataSync(), expected.flat(2))).toBeLessThan(1e-6);
    });
  });
});

describe('TokenMerging', () => {
  const size = { height: 8, width: 8 };

  test('works on feature maps up to maxDownsample, with whole cells, and with more than no tokens', () => {
    const cells = (options: object, map: object = {}, original = size) =>
      new TokenMerging({ ratio: 0.5, useRand: false, ...options }).chooseCells(2, { ...size, ...map }, original)
        ?.length;
    expect(cells({})).toBe(16);
    expect(cells({}, {}, { height: 16, width: 16 })).toBeUndefined();
    expect(cells({ maxDownsample: 2 }, {}, { height: 16, width: 16 })).toBe(16);
    expect(cells({ maxDownsample: 2 }, {}, { height: 15, width: 15 })).toBe(16);
    expect(cells({}, {}, { height: 15, width: 15 })).toBeUndefined();
    expect(cells({ sx: 3, sy: 4 })).toBe(4);
    expect(cells({ sx: 9 })).toBeUndefined();
    expect(cells({ ratio: 0 })).toBeUndefined();
    expect(cells({ ratio: 0.015 })).toBeUndefined();
  });

  test('a cell of sx x sy tokens counts them row by row', () => {
    tf.tidy(() => {
      const [sx, sy] = [4, 2];
      const merging = new TokenMerging({ ratio: 0.5, sx, sy });
      const cells = Int32Array.from({ length: 8 }, (_, cell) => (5 * cell + 3) % (sx * sy));
      const x = tf.randomNormal<tf.Rank.R3>([2, 64, 6], 0, 1, 'float32', 7);
      const tokens = merging.merges(x, size, cells).attention!;
      const expected = MergedTokens.match(
        x,
        cellDestinations(8, 8, sx, sy, (cell) => cells[cell]!),
        32,
      );
      expect(tokens.merge(x).dataSync()).toEqual(expected.merge(x).dataSync());
    });
  });

  test('random destinations are those of a torch generator, differ by layer and repeat after restart', () => {
    const merging = new TokenMerging({ ratio: 0.5, seed: 7 }, 2);
    const first = merging.chooseCells(2, size, size)!;
    expect(Array.from(first)).toEqual(Array.from(new TorchGenerator(9).randint(0, 4, 16)));
    expect(merging.chooseCells(2, size, size)).not.toEqual(first);
    merging.restart();
    expect(merging.chooseCells(2, size, size)).toEqual(first);
    expect(new TokenMerging({ ratio: 0.5, seed: 7 }, 3).chooseCells(2, size, size)).not.toEqual(first);
  });

  test('an odd batch, where prompt and negative prompt cannot share the choice, takes the first token of each cell', () => {
    expect(new TokenMerging({ ratio: 0.5 }).chooseCells(3, size, size)).toEqual(new Int32Array(16));
  });

  test('options out of range are errors', () => {
    expect(() => new TokenMerging({ ratio: 1.5 })).toThrow(/ratio expects a number from 0 to 1, got 1.5/);
    expect(() => new TokenMerging({ ratio: 0.5, sx: 0 })).toThrow(/sx expects a positive integer/);
  });
});

describe('BasicTransformerBlock with merged tokens', () => {
  const inputs = (): TransformerInputs => ({
    encoderHiddenStates: tf.randomNormal([2, 7, 5], 0, 1, 'float32', 8) as tf.Tensor3D,
    mapSize: { height: 6, width: 8 },
    originalSize: { height: 6, width: 8 },
  });
  const hidden = () => tf.randomNormal([2, 48, 12], 0, 1, 'float32', 9) as tf.Tensor3D;

  test('a ratio of 0, and removing it, are bit-identical to off', () => {
    const model = { transformerBlocks: [block()] };
    const run = () => tf.tidy(() => model.transformerBlocks[0]!.forward(hidden(), inputs()).dataSync());
    const off = run();
    applyTokenMerging(model, { ratio: 0 });
    expect(run()).toEqual(off);
    applyTokenMerging({ unet: model }, { ratio: 0.5 });
    expect(relativeL2(run(), off)).toBeGreaterThan(1e-4);
    removeTokenMerging(model);
    expect(run()).toEqual(off);
  });

  const layers = ['mergeAttention', 'mergeCrossAttention', 'mergeMlp'] as const;
  test.each(layers)('%s merges by the similarity of the block input and leaves the rest alone', (layer) => {
    const off = { mergeAttention: false, mergeCrossAttention: false, mergeMlp: false };
    const ours = block();
    const plain = block() as unknown as Record<string, { forward(x: tf.Tensor, ...more: unknown[]): tf.Tensor3D }>;
    ours.tokenMerging = new TokenMerging({ ratio: 0.5, useRand: false, ...off, [layer]: true });
    tf.tidy(() => {
      const x = hidden();
      const given = inputs();
      const destinations = cellDestinations(6, 8, 2, 2, () => 0);
      const merged = MergedTokens.match(x, destinations, 24);
      const context = { encoderHiddenStates: given.encoderHiddenStates };
      const run = (name: string, merging: boolean, f: (y: tf.Tensor) => tf.Tensor3D, norm: string, y: tf.Tensor3D) => {
        const normal = plain[norm]!.forward(y);
        return tf.add(
          merging && name === layer ? merged.unmerge(f(merged.merge(normal))) : f(normal),
          y,
        ) as tf.Tensor3D;
      };
      const first = run('mergeAttention', true, (y) => plain.attn1!.forward(y), 'norm1', x);
      const second = run('mergeCrossAttention', true, (y) => plain.attn2!.forward(y, context), 'norm2', first);
      const third = run('mergeMlp', true, (y) => plain.ff!.forward(y), 'norm3', second);
      expect(relativeL2(ours.forward(x, given).dataSync(), third.dataSync())).toBeLessThan(1e-6);
    });
  });

  test('sizes that do not fit the tokens are an error', () => {
    const ours = block();
    ours.tokenMerging = new TokenMerging({ ratio: 0.5 });
    tf.tidy(() => {
      expect(() => ours.forward(hidden(), { ...inputs(), mapSize: { height: 7, width: 8 } })).toThrow(
        /48 tokens needs/,
      );
    });
  });
});
