import { describe, expect, test } from '@jest/globals';
import { InvalidArgumentError } from '../../src/errors.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { loadSafetensors } from '../support/safetensors.js';

const { tensors } = loadSafetensors('test/fixtures/randn.safetensors');
const more = loadSafetensors('test/fixtures/torch_generator.safetensors').tensors;
const seeds = [...new Set(Object.keys(tensors).map((name) => name.split('/')[0]!))];

describe.each(seeds)('seed %s', (seed) => {
  const draws = Object.keys(tensors)
    .filter((name) => name.startsWith(`${seed}/`))
    .sort((a, b) => Number(a.split('/')[2]) - Number(b.split('/')[2]));

  test.each([BigInt(seed), Number(seed)])('draws what torch draws, in one go (%s)', (value) => {
    const generator = new TorchGenerator(value);
    for (const name of draws) {
      const { shape, data } = tensors[name]!;
      const kind = name.split('/')[1];
      const drawn =
        kind === 'rand'
          ? generator.rand(shape)
          : kind === 'randint'
            ? generator.randint(0, 1000, shape)
            : generator.randn(shape);
      expect(drawn).toEqual(data);
    }
  });
});

describe.each(['0', '-1', String(2n ** 63n + 11n)])('states of seed %s', (seed) => {
  const reference = (what: string) => more[`${seed}/${what}`]!.data;

  function drawRest(generator: TorchGenerator): void {
    expect(generator.randn(2)).toEqual(reference('randn'));
    expect(generator.randint(-5, 2 ** 28 + 7, 20)).toEqual(reference('wide'));
    expect(generator.randint(-(2 ** 27), 2 ** 27 - 1, [4, 5])).toEqual(reference('narrow'));
    expect(generator.randint(-(2 ** 31), 2 ** 31, [20])).toEqual(reference('all'));
    expect(generator.rand(700)).toEqual(reference('rand'));
    expect(generator.randn(1009)).toEqual(reference('long'));
  }

  test('carries a half-used pair of normals', () => {
    const generator = new TorchGenerator(BigInt(seed));
    expect(generator.randn(3)).toEqual(reference('first'));
    expect(generator.getState()).toEqual(reference('state'));
    drawRest(generator);
  });

  test('continues from torch state bytes', () => {
    const generator = new TorchGenerator(77).setState(reference('state') as Uint8Array);
    expect(generator.initialSeed()).toBe(BigInt.asUintN(64, BigInt(seed)));
    drawRest(generator);
  });

  test('starts again', () => {
    const generator = new TorchGenerator(5);
    generator.randn(3);
    generator.manualSeed(BigInt(seed));
    expect(generator.randn(3)).toEqual(reference('first'));
  });
});

test('a state is a copy, and draws after it repeat', () => {
  const generator = new TorchGenerator(9);
  generator.rand(1000);
  const state = generator.getState();
  const first = generator.randn([3, 7]);
  expect(generator.randn([3, 7])).not.toEqual(first);
  expect(generator.setState(state).randn([3, 7])).toEqual(first);
});

test('has a seed of its own when none is given, and can make one up', () => {
  expect(new TorchGenerator().initialSeed()).toBe(67280421310721n);
  const generator = new TorchGenerator();
  const seed = generator.seed();
  expect(generator.initialSeed()).toBe(seed);
  expect(generator.randn(20)).toEqual(new TorchGenerator(seed).randn(20));
  expect(generator.seed()).not.toBe(seed);
});

test('empty shapes draw nothing', () => {
  const generator = new TorchGenerator(0);
  expect(generator.randn([2, 0, 3])).toEqual(new Float32Array(0));
  expect(generator.randn([])).toEqual(new TorchGenerator(0).randn(1));
});

describe('refuses', () => {
  test.each([0.5, Number.NaN, 2 ** 53, 2n ** 64n, -(2n ** 63n) - 1n, '1' as unknown as number])('seed %s', (seed) => {
    expect(() => new TorchGenerator(seed)).toThrow(InvalidArgumentError);
  });

  test('a seed, leaving the generator as it was', () => {
    const generator = new TorchGenerator(3);
    expect(() => generator.manualSeed(1.5)).toThrow(/integer seed/);
    expect(generator.rand(5)).toEqual(new TorchGenerator(3).rand(5));
  });

  test.each([[[-1]], [[1.5]], [[2, Number.NaN]]])('shape %s', (shape) => {
    expect(() => new TorchGenerator(0).randn(shape)).toThrow(InvalidArgumentError);
    expect(() => new TorchGenerator(0).rand(shape)).toThrow(InvalidArgumentError);
  });

  test.each([
    [5, 5],
    [0.5, 3],
    [0, 2 ** 31 + 1],
  ])('bounds %s, %s', (low, high) => {
    expect(() => new TorchGenerator(0).randint(low, high, 3)).toThrow(InvalidArgumentError);
  });

  test('foreign state bytes', () => {
    const generator = new TorchGenerator(0);
    expect(() => generator.setState(new Uint8Array(10))).toThrow(/5056 bytes/);
    expect(() => generator.setState(new Uint8Array(5056))).toThrow(/no Mersenne Twister state/);
    expect(generator.rand(3)).toEqual(new TorchGenerator(0).rand(3));
  });
});
