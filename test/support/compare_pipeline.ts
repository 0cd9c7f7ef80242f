import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import type { GeneratedImage } from '../../src/images/index.js';
import type { UNet2DConditionModel } from '../../src/models/index.js';
import type { DenoisingStep, RawImage, StableDiffusionPipeline, StepChanges } from '../../src/pipelines/index.js';
import { createScheduler } from '../../src/schedulers/index.js';
import { type PipelineConfigs, type WeightDtype, writeCheckpoint } from './checkpoint.js';
import { relativeL2, toNHWC } from './compare.js';
import { loadReferenceCases, numbers, type ReferenceCase, tensor } from './reference_cases.js';
import { loadSafetensors, type TestTensor } from './safetensors.js';

const DTYPES: Record<string, WeightDtype> = { float16: 'F16', bfloat16: 'BF16' };

export type PipelineCase = ReferenceCase & {
  kind: string;
  dtype?: string;
  scheduler?: string;
  scheduler_config?: Record<string, unknown>;
  callback?: string;
  args: Record<string, unknown> & { prompt?: string | string[] };
};

/** The parts of a pipeline that the comparison needs. */
type AnyPipeline = Pick<StableDiffusionPipeline, 'unet' | 'scheduler' | 'dispose'> &
  ((prompt: PipelineCase['args']['prompt'], options: Record<string, unknown>) => Promise<{ images: unknown }>);

const camelCase = (name: string) => name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

/** Pictures [N,height,width,3] of 8-bit numbers as a pipeline takes them. */
function pictures({ shape, data }: TestTensor): RawImage[] {
  const [count, height, width, channels] = shape as [number, number, number, number];
  const size = height * width * channels;
  const bytes = data as Uint8Array;
  return Array.from({ length: count }, (_, i) => ({ width, height, data: bytes.slice(i * size, (i + 1) * size) }));
}

/** The arguments of Python's call as ours; embeddings, latents and pictures come from the file. */
function callOptions({ args, tensors }: PipelineCase): Record<string, unknown> {
  const { prompt, ...rest } = args;
  const entries = Object.entries(rest).map(([name, value]) => {
    const given = tensors[`given_${name}`];
    const ours = given && (given.data instanceof Uint8Array ? pictures(given) : tensor(given));
    return [camelCase(name), ours ?? value];
  });
  return Object.fromEntries(entries);
}

/** The changes that the reference's callbacks make after the second step. */
const CALLBACKS: Record<string, (reference: PipelineCase) => StepChanges> = {
  'guidance off': () => ({ guidanceScale: 0 }),
  'embeddings halved': ({ tensors }) => ({
    promptEmbeds: tf.tidy(() => tf.mul(tensor<tf.Tensor3D>(tensors.text_embeds!), 0.5)),
  }),
};

/** What the first call of the UNet got and gave. */
function watchFirstCall(unet: UNet2DConditionModel): { text: Float32Array; out: Float32Array } {
  const seen: { text?: Float32Array; out?: Float32Array } = {};
  const { predict } = Object.getPrototypeOf(unet) as UNet2DConditionModel;
  unet.predict = function (sample, timestep, text, inputs) {
    const out = predict.call(this, sample, timestep, text, inputs) as tf.Tensor4D;
    seen.text ??= text.dataSync() as Float32Array;
    seen.out ??= out.dataSync() as Float32Array;
    return out;
  };
  return seen as { text: Float32Array; out: Float32Array };
}

/** What is done to a pipeline before a case is drawn; gives what takes it back. */
type Prepare = (pipe: never, reference: PipelineCase) => Promise<() => Promise<void>>;
/** Tensors to relative L2 1e-4; pictures to one level of 8 bits, and most of their numbers to the same. */
function compareImages(images: tf.Tensor4D | GeneratedImage[], reference: TestTensor): void {
  if (images instanceof tf.Tensor) {
    expect(relativeL2(images.dataSync(), numbers(reference))).toBeLessThan(1e-4);
    return;
  }
  const [, , height, width] = reference.shape;
  expect(images.map((image) => [image.height, image.width])).toEqual(images.map(() => [height, width]));
  const expected = numbers(reference);
  const levels = images.flatMap(({ data }) => [...data]).map((x, i) => Math.abs(x - Math.round(expected[i]! * 255)));
  expect(levels.length).toBe(expected.length);
  expect(Math.max(...levels)).toBeLessThanOrEqual(1);
  expect(levels.filter((level) => level > 0).length).toBeLessThan(levels.length / 1000);
}

/** Compares every stage of every case in a file of references with Python diffusers'. */
export function comparePipeline(
  file: string,
  Pipeline: { fromPretrained(dir: string, options: { backend: 'wasm' }): Promise<unknown> },
  prepare?: Prepare,
): void {
  const kinds: Record<string, PipelineConfigs> = JSON.parse(loadSafetensors(file).metadata.kinds!);
  const cases = loadReferenceCases(file) as PipelineCase[];
  const groups = [...new Set(cases.map(({ kind, dtype = 'float32' }) => `${kind} in ${dtype}`))];
  describe.each(groups)('%s', (group) => compareGroup(cases, kinds, group, Pipeline, prepare));
}

function compareGroup(
  cases: PipelineCase[],
  kinds: Record<string, PipelineConfigs>,
  group: string,
  Pipeline: Parameters<typeof comparePipeline>[1],
  prepare?: Prepare,
): void {
  const own = cases.filter(({ kind, dtype = 'float32' }) => `${kind} in ${dtype}` === group);
  let dir: string;
  let pipe: AnyPipeline;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
    const { kind, dtype } = own[0]!;
    await writeCheckpoint(dir, kinds[kind]!, { dtype: dtype ? DTYPES[dtype] : 'F32' });
    pipe = (await Pipeline.fromPretrained(dir, { backend: 'wasm' })) as AnyPipeline;
  });

  afterAll(async () => {
    pipe.dispose();
    expect(tf.memory().numTensors).toBe(0);
    await rm(dir, { recursive: true });
  });

  test.each(own)('$name: every stage is that of Python diffusers', async (reference) => {
    const { tensors, args, scheduler, scheduler_config: config } = reference;
    const before = tf.memory().numTensors;
    const ownScheduler = pipe.scheduler;
    if (scheduler) {
      pipe.scheduler = createScheduler(scheduler, ownScheduler.config, config);
    }
    const options = callOptions(reference);
    const takeBack = await prepare?.(pipe as never, reference);
    const first = watchFirstCall(pipe.unet);
    const latents = tensors.latents!;
    const size = latents.shape.slice(1).reduce((a, b) => a * b, 1);
    const errors: number[] = [];

    // a picture that is put back into another one is one of 8 bits
    const outputType = args.padding_mask_crop === undefined ? 'tensor' : 'image';
    const output = await pipe(args.prompt, {
      ...options,
      outputType,
      callbackOnStepEnd: ({ step, latents: ours }: DenoisingStep) => {
        const expected = (latents.data as Float32Array).slice(step * size, (step + 1) * size);
        errors.push(relativeL2(ours.dataSync(), toNHWC(expected, latents.shape.slice(1))));
        return step === 1 && reference.callback ? CALLBACKS[reference.callback]!(reference) : undefined;
      },
    });

    expect(relativeL2(first.text, tensors.text_embeds!.data as Float32Array)).toBeLessThan(1e-5);
    expect(relativeL2(first.out, numbers(tensors.unet_out!))).toBeLessThan(1e-5);
    expect(errors).toHaveLength(latents.shape[0]!);
    expect(Math.max(...errors)).toBeLessThan(1e-4);
    compareImages(output.images as tf.Tensor4D | GeneratedImage[], tensors.image!);

    tf.dispose(output.images as tf.TensorContainer);
    tf.dispose(Object.values(options).filter((value) => value instanceof tf.Tensor));
    pipe.scheduler = ownScheduler;
    await takeBack?.();
    expect(tf.memory().numTensors).toBe(before);
  });
}
