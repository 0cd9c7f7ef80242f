import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { loadLora, setAdapters, unloadLora } from '../../src/adapters/lora/lora.js';
import {
  loadTextualInversion,
  textualInversions,
  unloadTextualInversion,
} from '../../src/adapters/textual_inversion.js';
import { pickBackend } from '../../src/backends/index.js';
import { CLIPTextModel, CLIPTextModelWithProjection } from '../../src/models/index.js';
import { CLIPTokenizer } from '../../src/tokenizers/index.js';
import { relativeL2 } from '../support/compare.js';
import { generatedTensor } from '../support/generated_weights.js';
import { writeDescribed } from './lora_file.js';

const TEXT = {
  vocab_size: 658,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  projection_dim: 16,
  eos_token_id: 657,
};

let dir: string;
let textEncoder: CLIPTextModel;
let textEncoder2: CLIPTextModelWithProjection;
beforeAll(async () => {
  await pickBackend('cpu');
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  textEncoder = CLIPTextModel.fromConfig(TEXT, { init: 'random' });
  const second = { ...TEXT, hidden_size: 24, num_attention_heads: 3, projection_dim: 16 };
  textEncoder2 = CLIPTextModelWithProjection.fromConfig(second, { init: 'random', seed: 1 });
});
afterAll(() => rm(dir, { recursive: true }));

const changed = (model: CLIPTextModel) =>
  model.parameters.flatMap(({ path, adapters }) => adapters.map(({ scale }) => [path, scale]));

test("LoRA keys of XL's two text encoders, kohya's and diffusers'", async () => {
  const path = join(dir, 'xl.safetensors');
  await writeDescribed(path, {
    tensors: {
      'lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight': [2, 16],
      'lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight': [32, 2],
      'lora_te2_text_projection.lora_down.weight': [2, 24],
      'lora_te2_text_projection.lora_up.weight': [16, 2],
      'text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight': [2, 24],
      'text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight': [24, 2],
    },
    values: { 'lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha': 1, 'lora_te2_text_projection.alpha': 4 },
  });
  const models = { textEncoder, textEncoder2 };
  const { numTensors } = tf.memory();
  const projection = textEncoder2.layers.get('text_projection')!.weight;
  const before = (await projection.data()).slice();
  await loadLora(models, path, { adapterName: 'xl' });
  setAdapters(models, 'xl', { textEncoder: 0.5, textEncoder2: 2 });
  expect(changed(textEncoder)).toEqual([['text_model.encoder.layers.0.mlp.fc1.weight', 0.25]]);
  expect(changed(textEncoder2)).toEqual([
    ['text_model.encoder.layers.0.self_attn.q_proj.weight', 2],
    ['text_projection.weight', 4],
  ]);
  const [down, up] = [
    generatedTensor('lora_te2_text_projection.lora_down.weight', [2, 24]),
    generatedTensor('lora_te2_text_projection.lora_up.weight', [16, 2]),
  ];
  const expected = before.map((w, i) => {
    const [row, column] = [Math.floor(i / 24), i % 24];
    return w + 4 * 0.49 * (up[2 * row]! * down[column]! + up[2 * row + 1]! * down[24 + column]!);
  });
  const actual = tf.tidy(() => tf.transpose(projection.effective).dataSync());
  expect(relativeL2(actual, expected)).toBeLessThan(1e-5);
  unloadLora(models);
  expect(changed(textEncoder2)).toEqual([]);
  expect(tf.memory().numTensors).toBe(numTensors);
});

test("a textual inversion of XL teaches both text encoders the word, one of its vectors' size each", async () => {
  const tokenizers = await Promise.all([1, 2].map(() => CLIPTokenizer.fromPretrained('weights/tiny-shapes/tokenizer')));
  const encodings = [
    { tokenizer: tokenizers[0]!, textEncoder },
    { tokenizer: tokenizers[1]!, textEncoder: textEncoder2 },
  ];
  const path = join(dir, 'pair.safetensors');
  await writeDescribed(path, { tensors: { clip_g: [3, 24], clip_l: [2, 16] }, values: {} });
  const { numTensors } = tf.memory();
  expect(await loadTextualInversion(encodings, path)).toBe('pair');
  expect(tokenizers.map((tokenizer) => tokenizer.encode('pair').length)).toEqual([4, 5]);
  expect(textualInversions(encodings).map(({ token }) => token)).toEqual(['pair']);
  for (const { tokenizer, textEncoder: encoder } of encodings) {
    const ids = tokenizer.encode('pair');
    const length = tf.tidy(() => encoder.forward([ids]).lastHiddenState.shape[1]);
    expect(length).toBe(ids.length);
  }
  unloadTextualInversion(encodings);
  const alone = join(dir, 'alone.safetensors');
  await writeDescribed(alone, { tensors: { clip_g: [24] }, values: {} });
  await loadTextualInversion(encodings, alone);
  expect(tokenizers.map((tokenizer) => tokenizer.hasToken('alone'))).toEqual([false, true]);
  unloadTextualInversion(encodings, 'alone');
  expect(tf.memory().numTensors).toBe(numTensors);
});
