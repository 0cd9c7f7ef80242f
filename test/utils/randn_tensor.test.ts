import '@tensorflow/tfjs-backend-cpu';
import { beforeAll, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../src/errors.js';
import { randnTensor } from '../../src/utils/randn_tensor.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { toNHWC } from '../support/compare.js';

beforeAll(async () => {
  await tf.setBackend('cpu');
});

test('draws in N,C,H,W order', () => {
  const noise = randnTensor([2, 3, 5, 4], new TorchGenerator(1));
  expect(noise.shape).toEqual([2, 3, 5, 4]);
  expect(noise.dtype).toBe('float32');
  expect(noise.dataSync()).toEqual(toNHWC(new TorchGenerator(1).randn([2, 4, 3, 5]), [2, 4, 3, 5]));
  noise.dispose();
  expect(tf.memory().numTensors).toBe(0);
});

test('draws each batch item from its own generator', () => {
  const noise = randnTensor([2, 3, 5, 4], [new TorchGenerator(7), new TorchGenerator(8)]);
  const items = tf.split(noise, 2);
  for (const [i, seed] of [7, 8].entries()) {
    expect(items[i]!.dataSync()).toEqual(toNHWC(new TorchGenerator(seed).randn([1, 4, 3, 5]), [1, 4, 3, 5]));
  }
  tf.dispose([noise, items]);
});

test.each([[[undefined]], [undefined], [[new TorchGenerator(1), {}]]])('refuses %p as generator', (generator) => {
  expect(() => randnTensor([2, 2, 2, 1], generator as never)).toThrow(/generator expects a TorchGenerator, or one/);
});

test('a list of one generator serves the whole batch', () => {
  const [one, list] = [
    randnTensor([2, 2, 2, 4], new TorchGenerator(3)),
    randnTensor([2, 2, 2, 4], [new TorchGenerator(3)]),
  ];
  expect(list.dataSync()).toEqual(one.dataSync());
  tf.dispose([one, list]);
});

test('other ranks: channels second from four axes on, else as they are', () => {
  const video = randnTensor<tf.Rank.R5>([1, 2, 3, 4, 5], new TorchGenerator(0));
  const drawn = tf.tensor(new TorchGenerator(0).randn([1, 5, 2, 3, 4]), [1, 5, 2, 3, 4]);
  const expected = tf.transpose(drawn, [0, 2, 3, 4, 1]);
  expect(video.dataSync()).toEqual(expected.dataSync());
  const tokens = randnTensor<tf.Rank.R3>([1, 6, 4], new TorchGenerator(0));
  expect(tokens.dataSync()).toEqual(new TorchGenerator(0).randn(24));
  tf.dispose([video, drawn, expected, tokens]);
});

test('refuses a list of another length and leaves nothing behind', () => {
  expect(() => randnTensor([3, 2, 2, 4], [new TorchGenerator(0), new TorchGenerator(1)])).toThrow(InvalidArgumentError);
  expect(tf.memory().numTensors).toBe(0);
});
