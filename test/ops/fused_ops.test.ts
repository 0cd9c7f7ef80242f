import { beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import '@tensorflow/tfjs-backend-wasm';
import { conv2d, groupNorm, layerNorm, linear, resizeNearest, timestepEmbedding } from '../../src/ops/index.js';
import { relativeL2 } from '../support/compare.js';
import { loadSafetensors } from '../support/safetensors.js';

interface Case {
  name: string;
  op: string;
  // biome-ignore lint/suspicious/noExplicitAny: each op has its own options
  options: any;
}

type Inputs = Record<string, tf.Tensor>;

const file = loadSafetensors('test/fixtures/fused_ops.safetensors');
const cases = JSON.parse(file.metadata.cases!) as Case[];

/** The tensors of a case below `prefix`, by name. */
function tensorsOf(prefix: string): Inputs {
  const names = Object.keys(file.tensors).filter((name) => name.startsWith(prefix));
  return Object.fromEntries(
    names.map((name) => {
      const { data, shape } = file.tensors[name]!;
      return [name.slice(prefix.length), tf.tensor(data as Float32Array, shape)];
    }),
  );
}

const numbers = (name: string) => file.tensors[name]!.data as Float32Array;

function run({ op, options }: Case, t: Inputs): tf.Tensor {
  const { x, weight, filter, gamma, beta, timesteps, ...rest } = t;
  const all = { ...options, ...rest, impl: 'composed' };
  switch (op) {
    case 'linear':
      return linear(x!, weight as tf.Tensor2D, all);
    case 'conv2d':
      return conv2d(x as tf.Tensor4D, filter as tf.Tensor4D, all);
    case 'groupNorm':
      return groupNorm(x!, gamma as tf.Tensor1D, beta as tf.Tensor1D, all);
    case 'layerNorm':
      return layerNorm(x!, gamma as tf.Tensor1D, beta as tf.Tensor1D, all);
    case 'resizeNearest':
      return resizeNearest(x as tf.Tensor4D, options.size);
    default:
      return timestepEmbedding(timesteps as tf.Tensor1D, all);
  }
}

describe.each(['cpu', 'wasm'])('composed fused ops equal PyTorch on %s', (backend) => {
  beforeAll(async () => {
    await tf.setBackend(backend);
  });

  test.each(cases.map((c) => [`${c.name}: ${c.op} ${JSON.stringify(c.options)}`, c] as const))('%s', (_, c) => {
    const before = tf.memory().numTensors;
    tf.tidy(() => {
      const inputs = tensorsOf(`${c.name}/in/`);
      const out = run(c, inputs);
      expect(out.shape).toEqual(file.tensors[`${c.name}/out`]!.shape);
      expect(relativeL2(out.dataSync(), numbers(`${c.name}/out`))).toBeLessThan(
        c.op === 'timestepEmbedding' ? 1e-5 : 1e-6,
      );
      if (c.op === 'timestepEmbedding') {
        return;
      }
      const names = Object.keys(inputs);
      const f = (...xs: tf.Tensor[]) => run(c, Object.fromEntries(names.map((name, i) => [name, xs[i]!])));
      const gradients = tf.grads(f)(Object.values(inputs), tensorsOf(`${c.name}/`).dy!);
      for (const [i, name] of names.entries()) {
        const expected = numbers(`${c.name}/grad/${name}`);
        expect(gradients[i]!.shape).toEqual(file.tensors[`${c.name}/grad/${name}`]!.shape);
        expect(relativeL2(gradients[i]!.dataSync(), expected)).toBeLessThan(5e-6);
      }
    });
    expect(tf.memory().numTensors).toBe(before);
  });
});

describe('fused ops name what does not fit', () => {
  const ones = (...shape: number[]) => tf.ones(shape);
  const errors: [string, () => unknown, RegExp][] = [
    [
      'linear weight',
      () => linear(ones(2, 3), ones(4, 5) as tf.Tensor2D),
      /expects 4 input features, got x of shape \[2,3\]/,
    ],
    [
      'linear bias',
      () => linear(ones(2, 3), ones(3, 5) as tf.Tensor2D, { bias: ones(4) as tf.Tensor1D }),
      /bias expects 5 numbers, got shape \[4\]/,
    ],
    [
      'conv2d channels',
      () => conv2d(ones(1, 4, 4, 640) as tf.Tensor4D, ones(3, 3, 320, 8) as tf.Tensor4D),
      /filter expects 320 input channels, got 640/,
    ],
    [
      'groupNorm groups',
      () => groupNorm(ones(1, 2, 6), ones(6) as tf.Tensor1D, ones(6) as tf.Tensor1D, { groups: 4 }),
      /a multiple of 4 groups/,
    ],
    [
      'layerNorm gamma',
      () => layerNorm(ones(2, 6), ones(5) as tf.Tensor1D, ones(5) as tf.Tensor1D),
      /gamma has 5 numbers, x \[2,6\]/,
    ],
  ];
  test.each(errors)('%s', (_, f, message) => {
    expect(() => tf.tidy(() => f() as tf.Tensor)).toThrow(message);
  });
});
