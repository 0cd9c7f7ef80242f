// Uses the examples of CONTRIBUTING.md in a copy of the library that has them; see contributing.test.ts.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from './dist/backends/index.js';
import { createAttentionMethod, StableDiffusionPipeline } from './dist/index.js';
import { ImageProjection } from './dist/models/index.js';
import { squaredRelu } from './dist/ops/index.js';
import { MirroredPipeline } from './dist/pipelines/index.js';

const checkpoint = process.argv[2];
const distance = (a, b) => tf.tidy(() => tf.max(tf.abs(tf.sub(a, b))).dataSync()[0]);

function attentionMethod() {
  const operands = (queries, keys) => ({
    q: tf.randomNormal([2, queries, 12], 0, 1, 'float32', 1),
    k: tf.randomNormal([2, keys, 12], 0, 1, 'float32', 2),
    v: tf.randomNormal([2, keys, 12], 0, 1, 'float32', 3),
    bias: tf.randomNormal([2, 1, queries, keys], 0, 1, 'float32', 4),
    heads: 3,
    scale: 0.5,
  });
  for (const [queries, keys] of [
    [1, 5],
    [7, 7],
    [8, 3],
  ]) {
    const [halves, classic] = ['halves', 'classic'].map((name) =>
      createAttentionMethod(name, 3).attend(operands(queries, keys)),
    );
    assert.ok(distance(halves, classic) < 1e-5);
  }
  assert.throws(
    () => createAttentionMethod({ name: 'halves', freeMemory: () => 10 }, 3).attend(operands(8, 8)),
    /memory/,
  );
}

function op() {
  const x = tf.tensor1d([-1, 0, 0.5, 3]);
  assert.deepEqual([...squaredRelu(x).dataSync()], [0, 0, 0.25, 9]);
  assert.deepEqual(
    [
      ...tf
        .grad((value) => tf.sum(squaredRelu(value)))(x)
        .dataSync(),
    ],
    [0, 0, 1, 6],
  );
  assert.throws(() => squaredRelu(tf.tensor1d([1], 'int32')), /\[squaredRelu\] x expects a tensor of float32/);
}

async function backend() {
  const { name } = { name: await pickBackend('plain') };
  assert.equal(name, 'plain');
  const x = tf.tensor1d([-1, 0.5, 3]);
  assert.deepEqual([...squaredRelu(x, { impl: 'native' }).dataSync()], [0, 0.25, 9]);
  assert.deepEqual(
    [
      ...tf
        .grad((value) => tf.sum(squaredRelu(value)))(x)
        .dataSync(),
    ],
    [0, 1, 6],
  );
  assert.deepEqual([...tf.matMul([[1, 2]], [[3], [4]]).dataSync()], [11]);
}

async function model() {
  const config = { image_embed_dim: 6, cross_attention_dim: 8, num_image_text_embeds: 3 };
  const dir = mkdtempSync(join(tmpdir(), 'example-'));
  const made = ImageProjection.fromConfig(config, { init: 'random', seed: 1 });
  await made.savePretrained(dir);
  const loaded = await ImageProjection.fromPretrained(dir);
  rmSync(dir, { recursive: true });
  const embedding = tf.randomNormal([2, 6], 0, 1, 'float32', 1);
  const [a, b] = [made, loaded].map((each) => each.forward(embedding));
  assert.deepEqual(a.shape, [2, 3, 8]);
  assert.equal(distance(a, b), 0);
  assert.ok(distance(tf.mean(a, -1), tf.zeros([2, 3])) < 1e-6);
  assert.deepEqual([...loaded.layers.keys()], ['image_embeds', 'norm']);
  assert.throws(() => ImageProjection.fromConfig({ num_image_text_embeds: 1e9 }), /num_image_text_embeds/);
}

async function pipeline() {
  const options = { seed: 3, numInferenceSteps: 2, height: 32, width: 32, outputType: 'latent' };
  const draw = async (Pipeline, more) => {
    const pipe = await Pipeline.fromPretrained(checkpoint, { backend: 'wasm' });
    const { images } = await pipe('a ring', { ...options, ...more });
    pipe.dispose();
    return images;
  };
  const before = tf.memory().numTensors;
  const [plain, off, on] = [
    await draw(StableDiffusionPipeline),
    await draw(MirroredPipeline, { mirrored: false }),
    await draw(MirroredPipeline),
  ];
  assert.equal(distance(plain, off), 0);
  assert.ok(distance(plain, on) > 0.1);
  tf.dispose([plain, off, on]);
  assert.equal(tf.memory().numTensors, before);
  await assert.rejects(draw(MirroredPipeline, { mirrored: 1 }), /mirrored expects true or false, got 1/);
}

await pickBackend('cpu');
attentionMethod();
op();
await model();
await backend();
await pipeline();
console.log('all examples work');
