import { expect, describe as suite, test } from '@jest/globals';
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { ConfigError, InvalidArgumentError } from '../../src/errors.js';
import { checkNames, describe, invalid, is, nearestName } from '../../src/utils/check.js';

suite('check', () => {
  test.each([
    [5, '5'],
    [NaN, 'NaN'],
    ['a', '"a"'],
    [null, 'null'],
    [undefined, 'undefined'],
    [[1, 2], '[1,2]'],
    [new Array(9).fill(0), 'a list of 9'],
    [{ a: 1 }, 'an object'],
    ['x'.repeat(1000), `"${'x'.repeat(77)}..."`],
  ])('describes %p', (value, text) => {
    expect(describe(value)).toBe(text);
  });

  test('describes tensors, also when they are disposed of', () => {
    const tensor = tf.tensor([1, 2]);
    expect(describe(tensor)).toBe('a tensor [2]');
    tensor.dispose();
    expect(describe(tensor)).toBe('a disposed tensor [2]');
    expect(is.tensor(tensor)).toBe(false);
  });

  test('says where, what, what was expected and what came', () => {
    const error = invalid('unet/config.json', 'in_channels', 'a whole number', 'four', ConfigError);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toBe('[unet/config.json] in_channels expects a whole number, got "four"');
  });

  test('numbers are finite, lists hold numbers only', () => {
    expect([
      is.number(1.5),
      is.number(Infinity),
      is.number('1'),
      is.whole(0),
      is.count(0),
      is.integer(2 ** 60),
    ]).toEqual([true, false, false, true, false, false]);
    expect([is.numbers([1, 2]), is.numbers(new Float32Array(2)), is.numbers([1, 'a']), is.numbers('12')]).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });

  test('finds the name that was meant', () => {
    const names = ['numInferenceSteps', 'guidanceScale', 'seed'];
    expect(nearestName('numInferenceStep', names)).toBe('numInferenceSteps');
    expect(nearestName('num_inference_steps', names)).toBe('numInferenceSteps');
    expect(nearestName('steps', names)).toBe('numInferenceSteps');
    expect(nearestName('torch_dtype', ['dtype'])).toBe('dtype');
    expect(nearestName('image', ['numImagesPerPrompt'])).toBeUndefined();
    expect(nearestName('picture', names)).toBeUndefined();
    expect(() => checkNames('pipe', ['sed'], names)).toThrow(
      new InvalidArgumentError('[pipe] there is no option "sed"; did you mean \'seed\'?'),
    );
    expect(() => checkNames('pipe', ['seed'], names)).not.toThrow();
  });
});
