import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { ATTENTION_NAMES, AttentionProjections, createAttention, KeyValueCache } from '../../src/attention/index.js';
import { pickBackend } from '../../src/backends/index.js';
import { physicalTypeOf } from '../../src/backends/precision.js';
import type { PhysicalType } from '../../src/backends/types.js';
import { BasicTransformerBlock, UNet2DConditionModel } from '../../src/models/index.js';
import {
  type Adapter,
  Conv2d,
  FullDelta,
  initRandom,
  type Layer,
  Linear,
  LowRankDelta,
  Weights,
} from '../../src/nn/index.js';
import { relativeL2 } from '../support/compare.js';
import { workingBackends } from '../support/native.js';

const backends = await workingBackends('onednn', 'wasm');
const random = (shape: number[], seed: number) => tf.keep(tf.randomNormal(shape, 0, 0.5, 'float32', seed));

/** A low-rank adapter for a layer, and the same weights with the adapter added to them by hand. */
function lowRank(
  layer: Layer,
  scale: number,
  seed = 7,
  live = false,
): { adapter: Adapter; apply: () => Promise<void> } {
  const [out, ...rest] = layer.weight.shape;
  const [down, up] = [random([2, ...rest], seed), random([out!, 2, ...rest.slice(1).map(() => 1)], seed + 1)];
  const apply = async () => {
    const data = (await layer.weight.data()).slice();
    const [a, b] = [up.dataSync(), down.dataSync()];
    const columns = data.length / out!;
    for (let i = 0; i < data.length; i++) {
      const [row, column] = [Math.floor(i / columns), i % columns];
      data[i]! += scale * (a[2 * row]! * b[column]! + a[2 * row + 1]! * b[columns + column]!);
    }
    layer.weight.assign(data);
  };
  return { adapter: { name: 'test', change: new LowRankDelta(down, up, live), scale }, apply };
}

function release(adapters: readonly Adapter[]): void {
  tf.dispose(adapters.flatMap(({ change }) => [...change.tensors]));
}

describe.each(backends)('adapters on %s', (backend) => {
  beforeAll(async () => {
    await pickBackend(backend);
  });
  afterAll(() => {
    expect(tf.memory().numTensors).toBe(0);
  });

  const types: PhysicalType[] = backend === 'onednn' ? ['float32', 'bfloat16', 'float16'] : ['float32'];

  test.each(types)('every way to compute self- and cross-attention has them, %s', async (type) => {
    const build = () => {
      const root = Weights.root(type);
      const config = { queryDim: 32, heads: 4, dimHead: 8, bias: true };
      const projections = new AttentionProjections(root.at('attn'), config);
      initRandom(root.parameters, 3, type);
      return { root, projections };
    };
    const [ours, theirs] = [build(), build()];
    const adapters: Adapter[] = [];
    for (const name of ['to_q', 'to_k', 'to_v', 'to_out.0']) {
      const { adapter } = lowRank(ours.root.layers.get(`attn.${name}`)!, 0.7, 1 + adapters.length * 10);
      ours.root.layers.get(`attn.${name}`)!.adapters = [adapter];
      const { apply, adapter: same } = lowRank(theirs.root.layers.get(`attn.${name}`)!, 0.7, 1 + adapters.length * 10);
      await apply();
      adapters.push(adapter, same);
    }
    const [x, context] = [random([2, 21, 32], 5), random([2, 9, 32], 6)] as [tf.Tensor3D, tf.Tensor3D];
    const bound = { float32: 1e-5, bfloat16: 2e-2, float16: 3e-3 }[type];
    for (const name of ATTENTION_NAMES) {
      for (const encoderHiddenStates of [undefined, context]) {
        const run = (projections: AttentionProjections) =>
          tf.tidy(() => createAttention(name, projections).forward(x, { encoderHiddenStates }).dataSync());
        expect(relativeL2(run(ours.projections), run(theirs.projections))).toBeLessThan(bound);
      }
    }
    for (const layer of ours.root.layers.values()) {
      expect(physicalTypeOf(layer.weight.effective)).toBe(type);
      layer.adapters = [];
      expect(layer.weight.effective).toBe(layer.weight.value);
    }
    for (const parameter of [...ours.root.parameters, ...theirs.root.parameters]) {
      parameter.dispose();
    }
    release(adapters);
    tf.dispose([x, context]);
  });

  test('several adapters, of convolutions and biases too; scale 0 is none', async () => {
    const root = Weights.root();
    const conv = new Conv2d(root.at('conv'), 5, 7, 3, { padding: 1 });
    initRandom(root.parameters, 1);
    const x = random([1, 4, 6, 5], 2) as tf.Tensor4D;
    const before = tf.tidy(() => conv.forward(x).dataSync());
    const first = lowRank(conv, 0.3, 1);
    const full = { name: 'full', change: new FullDelta(random([7, 5, 3, 3], 9)), scale: -2 };
    const bias = { name: 'bias', change: new FullDelta(random([7], 10)), scale: 1 };
    conv.adapters = [first.adapter, full, { ...full, scale: 0 }];
    conv.bias!.adapters = [bias];
    const actual = tf.tidy(() => conv.forward(x).dataSync());
    await first.apply();
    const data = (await conv.weight.data()).slice();
    const delta = full.change.tensors[0]!.dataSync();
    conv.weight.assign(data.map((w, i) => w - 2 * delta[i]!));
    const shift = bias.change.tensors[0]!.dataSync();
    conv.bias!.assign((await conv.bias!.data()).slice().map((b, i) => b + shift[i]!));
    conv.adapters = [];
    conv.bias!.adapters = [];
    expect(
      relativeL2(
        actual,
        tf.tidy(() => conv.forward(x).dataSync()),
      ),
    ).toBeLessThan(1e-6);
    expect(relativeL2(actual, before)).toBeGreaterThan(0.1);
    release([first.adapter, full, bias]);
    tf.dispose([x, ...root.parameters.map((p) => p.value)]);
  });

  test('an adapter of another size says so', () => {
    const root = Weights.root();
    const linear = new Linear(root.at('l'), 4, 3);
    initRandom(root.parameters);
    const change = new FullDelta(random([4], 1));
    linear.adapters = [{ name: 'x', change, scale: 1 }];
    expect(() => linear.weight.effective).toThrow(/expects the numbers of a weight \[3,4\], got a tensor \[4\]/);
    const [down, up] = [random([2, 4], 1), random([3, 5], 2)];
    expect(() => new LowRankDelta(down, up)).toThrow(/up expects \[out, 2\]/);
    tf.dispose([down, up, ...change.tensors, ...root.parameters.map((p) => p.value)]);
  });

  test('cached keys follow the adapters', () => {
    const root = Weights.root();
    const projections = new AttentionProjections(root.at('a'), { queryDim: 8, heads: 2, dimHead: 4 });
    initRandom(root.parameters, 3);
    const cache = new KeyValueCache();
    const [x, context] = [random([1, 5, 8], 1), random([1, 3, 8], 2)] as [tf.Tensor3D, tf.Tensor3D];
    const layer = createAttention('classic', projections);
    const run = (given?: KeyValueCache) =>
      tf.tidy(() => layer.forward(x, { encoderHiddenStates: context, cache: given }).dataSync());
    const before = run(cache);
    const { adapter } = lowRank(projections.toV, 1);
    projections.toV.adapters = [adapter];
    expect(run(cache)).toEqual(run());
    expect(run(cache)).not.toEqual(before);
    cache.dispose();
    for (const parameter of root.parameters) {
      parameter.dispose();
    }
    release([adapter]);
    tf.dispose([x, context]);
  });

  test('training reaches a live adapter, through a checkpointed block too', () => {
    const root = Weights.root();
    const config = { dim: 8, heads: 2, dimHead: 4, crossAttentionDim: 8, attention: 'auto' };
    const block = new BasicTransformerBlock(root, config);
    initRandom(root.parameters, 3);
    const layer = root.layers.get('attn1.to_q')!;
    const [down, up] = tf.tidy(() => [
      tf.variable(tf.randomNormal([2, 8], 0, 1, 'float32', 1)),
      tf.variable(tf.randomNormal([8, 2], 0, 1, 'float32', 2)),
    ]);
    layer.adapters = [{ name: 'lora', change: new LowRankDelta(down, up, true), scale: 0.5 }];
    const [x, context] = [random([1, 5, 8], 3), random([1, 3, 8], 4)] as [tf.Tensor3D, tf.Tensor3D];
    const loss = () => tf.mean(tf.square(block.forward(x, { encoderHiddenStates: context }))) as tf.Scalar;
    const gradients = () => {
      const { value, grads } = tf.variableGrads(loss, [down, up]);
      const numbers = [down, up].map((variable) => grads[variable.name]!.dataSync().slice());
      tf.dispose([value, ...Object.values(grads)]);
      return numbers;
    };
    const plain = gradients();
    block.checkpoint = true;
    const checkpointed = gradients();
    plain.forEach((gradient, i) => {
      expect(relativeL2(checkpointed[i]!, gradient)).toBeLessThan(1e-5);
    });
    // against a difference quotient in the direction of the gradient of `up`
    block.checkpoint = false;
    const along = (step: number) =>
      tf.tidy(() => {
        const moved = tf.add(up, tf.mul(tf.tensor2d(plain[1]!, [8, 2]), step));
        layer.adapters = [{ name: 'lora', change: new LowRankDelta(down, moved, true), scale: 0.5 }];
        return loss().dataSync()[0]!;
      });
    const square = Array.from(plain[1]!).reduce((sum, g) => sum + g * g, 0);
    const step = 1e-2 / Math.sqrt(square);
    expect((along(step) - along(-step)) / (2 * step) / square).toBeCloseTo(1, 1);
    for (const parameter of root.parameters) {
      parameter.dispose();
    }
    tf.dispose([x, context, down, up]);
  });

  test('fused ones survive offloading and are saved; attached ones are not saved; unfuse takes them out', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'adapters-'));
    const unet = await UNet2DConditionModel.fromPretrained('weights/tiny-shapes/unet');
    const key = [...unet.layers.keys()].find((path) => path.endsWith('attn1.to_k'))!;
    const layer = unet.layers.get(key)!;
    const [sample, text] = [
      random([1, 16, 16, unet.parsed.inChannels], 1),
      random([1, 7, unet.parsed.crossAttentionDim[0]!], 2),
    ];
    const run = (model = unet) =>
      model.withWeights(() => tf.tidy(() => model.forward(sample as tf.Tensor4D, 7, text as tf.Tensor3D).dataSync()));
    const base = await run();
    const { adapter } = lowRank(layer, 0.5);
    layer.adapters = [adapter];
    const changed = await run();
    expect(relativeL2(changed, base)).toBeGreaterThan(1e-3);
    const saved = async (name: string) => {
      await unet.savePretrained(join(dir, name));
      const again = await UNet2DConditionModel.fromPretrained(join(dir, name));
      const result = await run(again);
      again.dispose();
      return result;
    };
    expect(await saved('attached')).toEqual(base);
    await unet.enableOffload();
    expect(await run()).toEqual(changed);
    expect(await saved('attached_offloaded')).toEqual(base);
    layer.weight.fuse();
    expect(await run()).toEqual(changed);
    expect(await saved('fused_offloaded')).toEqual(changed);
    await unet.disableOffload();
    expect(await run()).toEqual(changed);
    expect(await saved('fused')).toEqual(changed);
    await unet.unfuse();
    expect(await run()).toEqual(base);
    release([adapter]);
    unet.dispose();
    tf.dispose([sample, text]);
    rmSync(dir, { recursive: true });
  });

  test.each(types)('numbers assigned to a parameter take the type of its model: %s', async (type) => {
    const root = Weights.root(type);
    const linear = new Linear(root.at('l'), 4, 3);
    linear.weight.assign(Float32Array.from({ length: 12 }, (_, i) => i));
    expect(physicalTypeOf(linear.weight.value)).toBe(type);
    linear.weight.load(new Uint8Array(48), 'F32', 'float32');
    linear.weight.assign(Float32Array.from({ length: 12 }, (_, i) => i));
    expect(physicalTypeOf(linear.weight.value)).toBe('float32');
    expect(Array.from(await linear.weight.data())).toEqual(Array.from({ length: 12 }, (_, i) => i));
    linear.weight.dispose();
  });
});
