import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../src/errors.js';
import { GeneratedImage } from '../../src/images/index.js';
import { AutoencoderTiny } from '../../src/models/index.js';
import { decodeLatents } from '../../src/pipelines/common/latents.js';
import { type DenoisingProgress, type DenoisingStep, StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { createScheduler } from '../../src/schedulers/index.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { loadGenerated } from '../support/generated_weights.js';
import { loadSafetensors } from '../support/safetensors.js';

const { metadata } = loadSafetensors('test/fixtures/pipelines.safetensors');
const { sd15 } = JSON.parse(metadata.kinds!) as Record<string, PipelineConfigs>;
const TINY = {
  encoder_block_out_channels: [8, 8],
  decoder_block_out_channels: [8, 8],
  num_encoder_blocks: [1, 1],
  num_decoder_blocks: [1, 1],
};
const CALL = { height: 16, width: 24, numInferenceSteps: 4, seed: 1 };

let dir: string;
let pipe: StableDiffusionPipeline;
let taesd: AutoencoderTiny;
let tensors: number;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(dir, sd15!);
  pipe = await StableDiffusionPipeline.fromPretrained(dir, { backend: 'wasm' });
  pipe.scheduler = createScheduler('EulerDiscreteScheduler', pipe.scheduler.config);
  taesd = AutoencoderTiny.fromConfig(TINY);
  await loadGenerated(taesd);
  tensors = tf.memory().numTensors;
});

afterAll(async () => {
  expect(tf.memory().numTensors).toBe(tensors);
  pipe.dispose();
  taesd.dispose();
  await rm(dir, { recursive: true });
});

/** What a linear preview shows of one latent: the published factors of Stable Diffusion 1, in -1..1, as 8 bits. */
function colour(latent: Float32Array): number[] {
  const factors = [
    [0.298, 0.207, 0.208],
    [0.187, 0.286, 0.173],
    [-0.158, 0.189, 0.264],
    [-0.184, -0.271, -0.473],
  ];
  const sums = [0, 1, 2].map((c) => factors.reduce((sum, row, i) => sum + row[c]! * latent[i]!, 0));
  return sums.map((x) => Math.min(Math.max(127.5 * (x + 1), 0), 255));
}

describe('previews', () => {
  test('linear ones are the colours of what the model now predicts, in the size of the picture', async () => {
    const seen: { latents: Float32Array; preview: GeneratedImage }[] = [];
    const progress: DenoisingProgress[] = [];
    await pipe('a', {
      ...CALL,
      preview: 'linear',
      onProgress: (p) => progress.push(p),
      callbackOnStepEnd: ({ predOriginalSample, preview }: DenoisingStep) => {
        seen.push({ latents: predOriginalSample!.dataSync() as Float32Array, preview: preview![0]! });
      },
    });
    expect(seen).toHaveLength(4);
    expect(progress.map(({ preview }) => preview![0])).toEqual(seen.map(({ preview }) => preview));
    for (const { latents, preview } of seen) {
      expect([preview.width, preview.height]).toEqual([24, 16]);
      for (const [x, y] of [
        [0, 0],
        [23, 15],
        [9, 6],
      ] as const) {
        const latent = (Math.floor(y / 2) * 12 + Math.floor(x / 2)) * 4;
        const wanted = colour(latents.slice(latent, latent + 4));
        const pixel = preview.data.slice((y * 24 + x) * 3, (y * 24 + x) * 3 + 3);
        expect(Math.max(...wanted.map((value, i) => Math.abs(value - pixel[i]!)))).toBeLessThan(1);
      }
    }
  });

  test("a VAE's are what it decodes, after every n-th step and the last", async () => {
    const shown: (Uint8Array | undefined)[] = [];
    const expected: Uint8Array[] = [];
    await pipe(['a', 'b'], {
      ...CALL,
      numInferenceSteps: 5,
      preview: { vae: taesd, every: 3 },
      callbackOnStepEnd: async ({ predOriginalSample, preview }: DenoisingStep) => {
        shown.push(preview?.[1]?.data);
        const pixels = decodeLatents(taesd, predOriginalSample!);
        const data = (await pixels.data()).slice(16 * 24 * 3);
        expected.push(GeneratedImage.fromFloats(data, 24, 16).data);
        pixels.dispose();
      },
    });
    expect(shown.map((data) => data !== undefined)).toEqual([false, false, true, false, true]);
    expect(shown[2]).toEqual(expected[2]);
    expect(shown[4]).toEqual(expected[4]);
  });

  test('where the scheduler tells no clean latents the latents themselves are shown', async () => {
    const euler = pipe.scheduler;
    pipe.scheduler = createScheduler('DPMSolverMultistepScheduler', euler.config);
    const shown: boolean[] = [];
    await pipe('a', { ...CALL, preview: 'linear', callbackOnStepEnd: ({ preview }) => void shown.push(!!preview) });
    expect(shown).toEqual([true, true, true, true]);
    pipe.scheduler = euler;
  });

  test('change nothing', async () => {
    const plain = await pipe('a', CALL);
    const previewed = await pipe('a', { ...CALL, preview: 'linear' });
    expect(previewed.images[0]!.data).toEqual(plain.images[0]!.data);
    expect(previewed.images[0]!.metadata).toEqual(plain.images[0]!.metadata);
  });

  test.each([
    ['another name', 'fast', /preview expects 'linear', or \{vae, every\}/],
    ['no autoencoder', { vae: {} }, /preview expects 'linear', or/],
    ['half a step', () => ({ vae: taesd, every: 0.5 }), /preview expects 'linear', or/],
  ])('are refused for %s', async (_, setting: unknown, message) => {
    const preview = (typeof setting === 'function' ? setting() : setting) as 'linear';
    await expect(pipe('a', { ...CALL, preview })).rejects.toThrow(InvalidArgumentError);
    await expect(pipe('a', { ...CALL, preview })).rejects.toThrow(message);
  });

  test('are refused for a VAE of other latents', async () => {
    const vae = AutoencoderTiny.fromConfig({ ...TINY, latent_channels: 16 });
    await expect(pipe('a', { ...CALL, preview: { vae } })).rejects.toThrow(/one for latents of 4 channels/);
  });
});
