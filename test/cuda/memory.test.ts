import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { type BackendName, pickBackend } from '../../src/backends/index.js';
import { type NativeTensorBackend, supportsPhysicalTypes } from '../../src/backends/types.js';
import '../../src/ops/gradients.js';
import { OutOfMemoryError } from '../../src/errors.js';

const suite = process.env.TFJS_DIFFUSERS_TEST_BACKEND === 'cuda' ? describe : describe.skip;

suite('memory of the card', () => {
  let backend: NativeTensorBackend;
  beforeAll(async () => {
    await pickBackend('cuda' as BackendName);
    const active = tf.backend();
    if (!supportsPhysicalTypes(active)) {
      throw new Error('the backend cuda is not the active one');
    }
    backend = active;
  });
  afterEach(() => backend.setMemoryLimit(0));

  test('above the limit: a typed error, nothing lost, and the next call works', () => {
    const before = backend.memoryInfo().bytesInUse;
    backend.setMemoryLimit(before + (1 << 20));
    const x = tf.ones([1 << 17]);
    x.dataSync();
    expect(() => tf.tidy(() => tf.tile(x, [8]))).toThrow(OutOfMemoryError);
    expect(tf.tidy(() => tf.sum(x).dataSync()[0])).toBe(1 << 17);
    x.dispose();
    expect(backend.memoryInfo().bytesInUse).toBe(before);
  });

  test('what ops and their gradients made goes back', async () => {
    const step = () =>
      tf.tidy(() => {
        const x = tf.randomNormal([2, 6, 6, 8], 0, 1, 'float32', 1) as tf.Tensor4D;
        const filter = tf.randomNormal([3, 3, 8, 4], 0, 1, 'float32', 2) as tf.Tensor4D;
        return tf.grads((a, b) => tf.mean(tf.square(tf.conv2d(a as tf.Tensor4D, b as tf.Tensor4D, 1, 'same'))))([
          x,
          filter,
        ]);
      });
    tf.dispose(step());
    const tensors = tf.memory().numTensors;
    const bytes = backend.memoryInfo().bytesInUse;
    for (let i = 0; i < 5; i++) {
      const gradients = step();
      await gradients[0]!.data();
      tf.dispose(gradients);
    }
    expect(tf.memory().numTensors).toBe(tensors);
    expect(backend.memoryInfo().bytesInUse).toBe(bytes);
  });
});
