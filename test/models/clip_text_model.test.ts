import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { InvalidArgumentError } from '../../src/errors.js';
import { CLIPTextModel, CLIPTextModelWithProjection } from '../../src/models/index.js';
import { MODEL_BACKEND } from '../support/backend.js';
import { relativeL2 } from '../support/compare.js';
import { loadGenerated } from '../support/generated_weights.js';
import { loadReferenceCases, type ReferenceCase } from '../support/reference_cases.js';

type TextCase = ReferenceCase & { projection: boolean; ids: number[][]; mask: number[][] | null };
const cases = loadReferenceCases('test/fixtures/models/clip_text.safetensors') as TextCase[];

describe('CLIPTextModel', () => {
  let model: CLIPTextModel;

  beforeAll(async () => {
    await pickBackend(MODEL_BACKEND);
  });

  afterEach(() => {
    model.dispose();
    expect(tf.memory().numTensors).toBe(0);
  });

  async function build({ config, projection }: TextCase): Promise<CLIPTextModel> {
    model = (projection ? CLIPTextModelWithProjection : CLIPTextModel).fromConfig(config);
    await loadGenerated(model);
    return model;
  }

  test.each(cases)("equals transformers': $name", async (reference) => {
    const { ids, mask, tensors } = reference;
    const text = await build(reference);
    const layers = text.parsed.numHiddenLayers;
    for (let clipSkip = 0; clipSkip <= layers; clipSkip++) {
      const out = text.forward(ids, { clipSkip, attentionMask: mask ?? undefined });
      const expected = tensors[`hidden.${clipSkip}`]!.data as Float32Array;
      expect(relativeL2(out.lastHiddenState.dataSync(), expected)).toBeLessThan(1e-5);
      if (clipSkip === 0) {
        expect(out.pooled.shape).toEqual(tensors.pooled!.shape);
        expect(relativeL2(out.pooled.dataSync(), tensors.pooled!.data as Float32Array)).toBeLessThan(1e-5);
      }
      tf.dispose([out.lastHiddenState, out.pooled, out.hiddenState]);
    }
  });

  test.each([
    [2, 'the first of the largest ids', 2],
    [7, 'the first of these ids', 1],
  ])('with eos_token_id %d, pooled is the state of %s', async (eosTokenId, _, position) => {
    const { config } = cases.find(({ projection }) => !projection)!;
    model = CLIPTextModel.fromConfig({ ...config, eos_token_id: eosTokenId });
    await loadGenerated(model);
    const out = model.forward([[3, 7, 50, 50, 7]]);
    const state = tf.tidy(() => tf.slice(out.lastHiddenState, [0, position, 0], [1, 1, -1]).dataSync());
    expect(out.pooled.dataSync()).toEqual(state);
    tf.dispose([out.lastHiddenState, out.pooled, out.hiddenState]);
  });

  test.each([
    ['no texts', [], 0],
    ['no tokens', [[]], 0],
    ['lists of different lengths', [[57, 58], [57]], 0],
    ['more tokens than positions', [new Array(13).fill(1)], 0],
    ['a token outside the vocabulary', [[57, 60]], 0],
    ['a negative token', [[57, -1]], 0],
    ['a token that is no integer', [[57, 1.5]], 0],
    ['more layers to skip than there are', [[57, 58]], 4],
    ['a negative number of layers', [[57, 58]], -1],
    ['half a layer', [[57, 58]], 0.5],
  ])('refuses %s', async (_, ids, clipSkip) => {
    const text = await build(cases[0]!);
    expect(() => text.forward(ids, { clipSkip })).toThrow(InvalidArgumentError);
  });
});
