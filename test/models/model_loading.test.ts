import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { AbortedError, CheckpointError, DiffusersError, StateDictError } from '../../src/errors.js';
import type { StateDict } from '../../src/loaders/state_dict.js';
import { loadStateDict, matchStateDict } from '../../src/models/index.js';
import { Conv2d, Embedding, GroupNorm, Linear, Weights } from '../../src/nn/index.js';
import { memoryStateDict } from '../support/generated_weights.js';

/** A little of everything: 9 tensors under first and second names. */
function build(): Weights {
  const w = Weights.root();
  new Linear(w.at('attention').at('to_q', 'query'), 2, 3);
  new Linear(w.at('proj'), 2, 2, { bias: false, asConvolution: true });
  new Conv2d(w.at('conv'), 2, 3, 3);
  new GroupNorm(w.at('text_model', '').at('norm'), 1, 2, 1e-5);
  new Embedding(w.at('tokens'), 4, 2);
  new Linear(w.at('blocks').at(0), 1, 1, { bias: false });
  return w;
}

const SHAPES: Record<string, number[]> = {
  'attention.to_q.weight': [3, 2],
  'attention.to_q.bias': [3],
  'proj.weight': [2, 2, 1, 1],
  'conv.weight': [3, 2, 3, 3],
  'conv.bias': [3],
  'text_model.norm.weight': [2],
  'text_model.norm.bias': [2],
  'tokens.weight': [4, 2],
  'blocks.0.weight': [1, 1],
};

function checkpoint(
  change: (shapes: Record<string, number[]>) => Record<string, number[]> = (same) => same,
): StateDict {
  const tensors = Object.entries(change({ ...SHAPES })).map(([name, shape]) => {
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => i);
    return [name, { shape, data }] as const;
  });
  return memoryStateDict(new Map(tensors));
}

const renamed = (from: string, to: string) => (shapes: Record<string, number[]>) =>
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name.replace(from, to), shape]));

describe('loadStateDict', () => {
  let w: Weights;

  beforeAll(async () => {
    await pickBackend('wasm');
  });

  afterEach(() => {
    for (const parameter of w.parameters) {
      parameter.dispose();
    }
    expect(tf.memory().numTensors).toBe(0);
  });

  test("a parameter's path is its key, and its numbers come back in the checkpoint's order", async () => {
    w = build();
    expect(w.parameters.map(({ path }) => path)).toEqual(Object.keys(SHAPES));
    const seen: [number, number][] = [];
    await loadStateDict(w.parameters, checkpoint(), { onProgress: (loaded, total) => seen.push([loaded, total]) });
    for (const parameter of w.parameters) {
      expect(parameter.shape).toEqual(SHAPES[parameter.path]);
      expect(Array.from(await parameter.data())).toEqual(Array.from({ length: parameter.size }, (_, i) => i));
    }
    expect(seen).toEqual(w.parameters.map((_, i) => [i + 1, 9]));
  });

  test('matrices are held transposed, kernels as height, width, inputs, outputs', async () => {
    w = build();
    await loadStateDict(w.parameters, checkpoint());
    const [matrix, , pointwise, kernel] = w.parameters;
    expect(matrix!.value.shape).toEqual([2, 3]);
    expect(Array.from(matrix!.value.dataSync())).toEqual([0, 2, 4, 1, 3, 5]);
    expect(pointwise!.value.shape).toEqual([2, 2]);
    expect(kernel!.value.shape).toEqual([3, 3, 2, 3]);
    // the output channel of the first number's neighbour is the next one, 18 numbers on in the checkpoint
    expect(Array.from(kernel!.value.dataSync().slice(0, 6))).toEqual([0, 18, 36, 9, 27, 45]);
  });

  test.each([
    ['the older name of a layer', renamed('to_q', 'query')],
    ['a level that is absent', renamed('text_model.', '')],
    ['a matrix as a 1x1 convolution', (shapes) => ({ ...shapes, 'attention.to_q.weight': [3, 2, 1, 1] })],
    ['a 1x1 convolution as a matrix', (shapes) => ({ ...shapes, 'proj.weight': [2, 2] })],
  ] satisfies [string, (shapes: Record<string, number[]>) => Record<string, number[]>][])(
    'takes %s',
    async (_, change) => {
      w = build();
      await loadStateDict(w.parameters, checkpoint(change));
      expect(w.parameters.every(({ isLoaded }) => isLoaded)).toBe(true);
    },
  );

  test('both names of one tensor at once are one too many', () => {
    w = build();
    const both = checkpoint((shapes) => ({ ...shapes, 'attention.query.weight': [3, 2] }));
    expect(() => matchStateDict(w.parameters, both)).toThrow(/unused:\n {4}attention\.query\.weight/);
  });

  test('one error lists all that is missing, of another shape and left over', async () => {
    w = build();
    const bad = checkpoint(({ 'conv.bias': _bias, 'tokens.weight': _tokens, ...shapes }) => ({
      ...shapes,
      'conv.weight': [3, 2, 1, 1],
      'attention.to_q.bias': [4],
      extra: [1],
      'more.weight': [2],
    }));
    const error = await loadStateDict(w.parameters, bad, { source: 'unet', ignore: /^more/ }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(StateDictError);
    expect((error as Error).message.split('\n')).toEqual([
      'unet does not fit the model that its config.json describes:',
      '  missing:',
      '    conv.bias [3]',
      '    tokens.weight [4,2]',
      '  of another shape:',
      '    attention.to_q.bias: expected [3], got [4]',
      '    conv.weight: expected [3,2,3,3], got [3,2,1,1]',
      '  unused:',
      '    extra',
    ]);
    expect(w.parameters.some(({ isLoaded }) => isLoaded)).toBe(false);
  });

  test('a tensor that cannot be read leaves nothing loaded', async () => {
    w = build();
    const dict = checkpoint();
    const failing: StateDict = {
      ...dict,
      read: (key) => (key === 'tokens.weight' ? Promise.reject(new CheckpointError('the file ended')) : dict.read(key)),
    };
    await expect(loadStateDict(w.parameters, failing)).rejects.toThrow(CheckpointError);
    expect(w.parameters.some(({ isLoaded }) => isLoaded)).toBe(false);
  });

  test('a signal stops it between two tensors and leaves nothing loaded', async () => {
    w = build();
    const controller = new AbortController();
    const reason = new Error('enough');
    let loaded = 0;
    const onProgress = () => {
      if (++loaded === 3) {
        controller.abort(reason);
      }
    };
    const error = await loadStateDict(w.parameters, checkpoint(), { signal: controller.signal, onProgress }).catch(
      (e: unknown) => e,
    );
    expect(error).toBeInstanceOf(AbortedError);
    expect((error as Error).cause).toBe(reason);
    expect(loaded).toBe(3);
    expect(w.parameters.some(({ isLoaded }) => isLoaded)).toBe(false);
  });

  test('loading again replaces the numbers', async () => {
    w = build();
    await loadStateDict(w.parameters, checkpoint());
    const before = tf.memory().numTensors;
    await loadStateDict(w.parameters, checkpoint());
    expect(tf.memory().numTensors).toBe(before);
  });

  test('a parameter without numbers says which one it is', () => {
    w = build();
    expect(() => w.parameters[3]!.value).toThrow(DiffusersError);
    expect(() => w.parameters[3]!.value).toThrow(/conv\.weight/);
  });
});
