import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { supportsPhysicalTypes } from '../../src/backends/types.js';
import { StableDiffusionPipeline } from '../../src/index.js';
import { workingBackends } from '../support/native.js';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** What is held after everything that can be collected has been: tensors, their bytes, JavaScript's heap and buffers. */
async function held() {
  for (let i = 0; i < 3; i++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    collect();
  }
  const { heapUsed, external } = process.memoryUsage();
  const backend = tf.backend();
  const native = supportsPhysicalTypes(backend) ? backend.memoryInfo().bytesInUse : 0;
  const { numTensors, numDataBuffers, numBytes } = tf.memory();
  return { tensors: { numTensors, numDataBuffers, numBytes, native }, heapUsed, external };
}

const backends = await workingBackends('onednn', 'wasm');

describe.each(backends)('50 pictures in one process on %s', (backend) => {
  let pipe: StableDiffusionPipeline;
  beforeAll(async () => {
    pipe = await StableDiffusionPipeline.fromPretrained('weights/tiny-shapes', { backend });
  });
  afterAll(() => pipe.dispose());

  async function draw(pictures: number): Promise<void> {
    for (let i = 0; i < pictures; i++) {
      const [width, height] = i % 2 ? [32, 48] : [48, 32];
      const { images } = await pipe(`picture ${i}`, { seed: i, numInferenceSteps: 2, width, height });
      await images[0]!.toBuffer();
    }
  }

  async function stop(): Promise<void> {
    const signal = AbortSignal.abort();
    await expect(pipe('stopped', { signal, numInferenceSteps: 2, width: 32, height: 32 })).rejects.toThrow('stopped');
    const failing = () => {
      throw new Error('callback');
    };
    const options = { callbackOnStepEnd: failing, numInferenceSteps: 2, width: 32, height: 32 };
    await expect(pipe('failing', options)).rejects.toThrow('callback');
  }

  test('leave tensors and the heap where they were', async () => {
    // first calls compile code and fill caches
    await draw(30);
    await stop();
    const before = await held();
    await draw(50);
    await stop();
    const after = await held();
    expect(after.tensors).toEqual(before.tensors);
    // arrays of numbers lie outside the heap: the pixels of one picture are 4608 bytes
    expect((after.external - before.external) / 50).toBeLessThan(1024);
    // code that the engine goes on compiling takes a few kilobytes for each picture at first
    expect((after.heapUsed - before.heapUsed) / 50).toBeLessThan(32 * 1024);
  });
});
