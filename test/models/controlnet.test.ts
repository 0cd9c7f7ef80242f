import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { ConfigError, InvalidArgumentError } from '../../src/errors.js';
import { type ControlNetInputs, ControlNetModel, type ControlNetOutput } from '../../src/models/index.js';
import { relativeL2 } from '../support/compare.js';
import { digest, loadGenerated } from '../support/generated_weights.js';
import { loadReferenceCases, numbers, type ReferenceCase, tensor } from '../support/reference_cases.js';

type ControlNetCase = ReferenceCase & { options: { conditioning_scale?: number; guess_mode?: boolean } };
const cases = loadReferenceCases('test/fixtures/models/controlnet.safetensors') as ControlNetCase[];

function inputsOf({ tensors, options, config }: ControlNetCase): ControlNetInputs {
  const { text_embeds: textEmbeds, time_ids: timeIds, class_labels: labels } = tensors;
  return {
    conditioningScale: options.conditioning_scale,
    guessMode: options.guess_mode,
    addedCond: timeIds && { textEmbeds: tensor(textEmbeds!), timeIds: tensor(timeIds) },
    classLabels: config.num_class_embeds ? tf.cast(tensor(labels!), 'int32') : undefined,
  };
}

function compare({ downBlockResSamples, midBlockResSample }: ControlNetOutput, { tensors }: ControlNetCase): void {
  const names = Object.keys(tensors).filter((name) => name.startsWith('down.'));
  expect(downBlockResSamples).toHaveLength(names.length);
  for (const [i, name] of names.sort().entries()) {
    expect(relativeL2(downBlockResSamples[i]!.dataSync(), numbers(tensors[name]!))).toBeLessThan(1e-5);
  }
  expect(relativeL2(midBlockResSample.dataSync(), numbers(tensors.mid!))).toBeLessThan(1e-5);
}

describe('ControlNetModel', () => {
  let net: ControlNetModel | null = null;

  beforeAll(async () => {
    await pickBackend('wasm');
  });

  afterEach(() => {
    net?.dispose();
    net = null;
    expect(tf.memory().numTensors).toBe(0);
  });

  async function build(config: Record<string, unknown>, attention = 'classic'): Promise<ControlNetModel> {
    net = ControlNetModel.fromConfig(config, { attention });
    await loadGenerated(net);
    return net;
  }

  describe.each(['classic', 'memory-efficient'])("equals diffusers' with attention '%s'", (attention) => {
    test.each(cases)('$name', async (reference) => {
      const { config, digest: expected, tensors } = reference;
      const model = await build(config, attention);
      expect(digest(model.parameters)).toBe(expected);
      tf.tidy(() => {
        const [sample, time] = [tensor<tf.Tensor4D>(tensors.sample!), tensor<tf.Tensor1D>(tensors.timestep!)];
        const text = tensor<tf.Tensor3D>(tensors.encoder_hidden_states!);
        const image = tensor<tf.Tensor4D>(tensors.controlnet_cond!);
        const inputs = inputsOf(reference);
        compare(model.forward(sample, time, text, image, inputs), reference);
        const embedded = model.embedCondition(image);
        compare(model.forward(sample, time, text, embedded, { ...inputs, isEmbedded: true }), reference);
      });
    });
  });

  test.each([
    ['a picture of another size', [1, 16, 16, 3], /controlnetCond expects a control picture \[1,20,20,3\]/],
    ['a picture of other channels', [1, 20, 20, 1], /controlnetCond expects a tensor \[B,H,W,3\]/],
  ] as const)('%s is refused', async (_, shape, message) => {
    const model = await build(cases[0]!.config);
    const [sample, text] = [tf.zeros<tf.Rank.R4>([1, 10, 10, 4]), tf.zeros<tf.Rank.R3>([1, 5, 12])];
    const image = tf.zeros([...shape]) as tf.Tensor4D;
    const call = () => model.forward(sample, 1, text, image);
    expect(call).toThrow(InvalidArgumentError);
    expect(call).toThrow(message);
    tf.dispose([sample, text, image]);
  });

  test('a configuration that no ControlNet has is refused', () => {
    expect(() => ControlNetModel.fromConfig({ controlnet_conditioning_channel_order: 'gbr' })).toThrow(ConfigError);
    expect(() => ControlNetModel.fromConfig({ down_block_types: ['AttnDownBlock2D'] })).toThrow(/down_block_types/);
  });
});
