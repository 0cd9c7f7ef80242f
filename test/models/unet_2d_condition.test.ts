import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import { InvalidArgumentError } from '../../src/errors.js';
import { UNet2DConditionModel, type UNetInputs } from '../../src/models/index.js';
import { MODEL_BACKEND } from '../support/backend.js';
import { relativeL2 } from '../support/compare.js';
import { digest, loadGenerated } from '../support/generated_weights.js';
import { loadReferenceCases, numbers, type ReferenceCase, tensor } from '../support/reference_cases.js';

const cases = loadReferenceCases('test/fixtures/models/unet.safetensors');

function conditions({ tensors, config }: ReferenceCase): UNetInputs {
  const given = <T extends tf.Tensor>(name: string) => (tensors[name] ? tensor<T>(tensors[name]) : undefined);
  const list = (name: string) => {
    const found = Object.keys(tensors).filter((key) => key.startsWith(`${name}.`));
    return found.length > 0 ? found.sort().map((key) => given<tf.Tensor4D>(key)!) : undefined;
  };
  const labels = given('class_labels');
  const timeIds = given<tf.Tensor2D>('time_ids');
  return {
    classLabels: config.num_class_embeds ? tf.cast(labels!, 'int32') : labels,
    timestepCond: given('timestep_cond'),
    addedCond: timeIds && { textEmbeds: given<tf.Tensor2D>('text_embeds')!, timeIds },
    encoderAttentionMask: given('encoder_attention_mask'),
    downBlockAdditionalResiduals: list('down_residuals'),
    midBlockAdditionalResidual: given('mid_residual'),
    downIntrablockAdditionalResiduals: list('intrablock_residuals'),
  };
}

function call(unet: UNet2DConditionModel, reference: ReferenceCase): tf.Tensor4D {
  const { tensors } = reference;
  return tf.tidy(() =>
    unet.forward(
      tensor(tensors.sample!),
      tensor(tensors.timestep!),
      tensor(tensors.encoder_hidden_states!),
      conditions(reference),
    ),
  );
}

describe('UNet2DConditionModel', () => {
  let unet: UNet2DConditionModel | null = null;

  beforeAll(async () => {
    await pickBackend(MODEL_BACKEND);
  });

  afterEach(() => {
    unet?.dispose();
    unet = null;
    expect(tf.memory().numTensors).toBe(0);
  });

  async function build(config: Record<string, unknown>, attention: string): Promise<UNet2DConditionModel> {
    unet = UNet2DConditionModel.fromConfig(config, { attention });
    await loadGenerated(unet);
    return unet;
  }

  describe.each(['classic', 'memory-efficient'])("equals diffusers' with attention '%s'", (attention) => {
    test.each(cases)('$name', async (reference) => {
      const model = await build(reference.config, attention);
      expect(digest(model.parameters)).toBe(reference.digest);
      const out = call(model, reference);
      expect(relativeL2(out.dataSync(), numbers(reference.tensors.out!))).toBeLessThan(1e-5);
      out.dispose();
    });
  });

  test('one timestep stands for the whole batch', async () => {
    const { config, tensors } = cases[0]!;
    const model = await build(config, 'classic');
    const [sample, text] = [tensor<tf.Tensor4D>(tensors.sample!), tensor<tf.Tensor3D>(tensors.encoder_hidden_states!)];
    const times = tf.tensor1d([801.5, 801.5]);
    const [one, each] = [model.forward(sample, 801.5, text), model.forward(sample, times, text)];
    expect(one.dataSync()).toEqual(each.dataSync());
    tf.dispose([sample, text, times, one, each]);
  });

  test.each([
    ['a sample of other channels', { sample: [1, 8, 8, 3] }],
    ['a sample without a batch', { sample: [8, 8, 4] }],
    ['text of another width', { text: [1, 5, 11] }],
    ['text of another batch', { text: [3, 5, 12] }],
  ])('%s is refused', async (_, shapes: { sample?: number[]; text?: number[] }) => {
    const model = await build(cases[1]!.config, 'classic');
    const { sample = [1, 8, 8, 4], text = [1, 5, 12] } = shapes;
    const inputs: [tf.Tensor4D, tf.Tensor3D] = [tf.zeros(sample as never), tf.zeros(text as never)];
    expect(() => model.forward(inputs[0], 1, inputs[1])).toThrow(InvalidArgumentError);
    tf.dispose(inputs);
  });

  test('residuals that do not belong together are refused', async () => {
    const model = await build(cases[1]!.config, 'classic');
    const [sample, text] = [tf.zeros<tf.Rank.R4>([1, 8, 8, 4]), tf.zeros<tf.Rank.R3>([1, 5, 12])];
    const { numTensors } = tf.memory();
    const call = (inputs: UNetInputs) => () => model.forward(sample, 1, text, inputs);
    expect(call({ downBlockAdditionalResiduals: [sample] })).toThrow(/go together; a T2I-Adapter's are/);
    expect(call({ downBlockAdditionalResiduals: [sample], midBlockAdditionalResidual: sample })).toThrow(
      /downBlockAdditionalResiduals expects 4 tensors, got 1/,
    );
    expect(call({ downIntrablockAdditionalResiduals: [] })).toThrow(/expects 2 or 3 tensors, got 0/);
    expect(tf.memory().numTensors).toBe(numTensors);
    tf.dispose([sample, text]);
  });

  test.each(cases.filter(({ tensors }) => tensors.class_labels || tensors.time_ids))(
    'refuses to go without the conditions of: $name',
    async ({ config }) => {
      const model = await build(config, 'classic');
      const [sample, text] = [tf.zeros<tf.Rank.R4>([1, 8, 8, 4]), tf.zeros<tf.Rank.R3>([1, 5, 12])];
      expect(() => model.forward(sample, 1, text)).toThrow(InvalidArgumentError);
      tf.dispose([sample, text]);
    },
  );
});
