import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { AbortedError, InvalidArgumentError } from '../../src/errors.js';
import { AutoencoderKL, CLIPTextModel, pickBackend, TorchGenerator, UNet2DConditionModel } from '../../src/index.js';
import { decodeLatents, encodeImage, prepareLatents } from '../../src/pipelines/common/latents.js';
import { applySchedule } from '../../src/pipelines/common/schedule.js';
import {
  Conditioning,
  denoisingLoop,
  GuidedDenoiser,
  type LoopStep,
  runLoop,
  type StepDecision,
  VaeImageProcessor,
} from '../../src/pipelines/index.js';
import { encodePrompt } from '../../src/pipelines/stable_diffusion/encode_prompt.js';
import {
  createScheduler,
  EulerDiscreteScheduler,
  FlowMatchEulerDiscreteScheduler,
} from '../../src/schedulers/index.js';
import { CLIPTokenizer } from '../../src/tokenizers/index.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { relativeL2, toNHWC } from '../support/compare.js';
import { loadReferenceCases, numbers, type ReferenceCase } from '../support/reference_cases.js';
import { loadSafetensors } from '../support/safetensors.js';

let before: number;
beforeAll(() => pickBackend('wasm'));
beforeEach(() => {
  before = tf.memory().numTensors;
});
afterEach(() => {
  expect(tf.memory().numTensors).toBe(before);
});

interface InpaintingArgs {
  prompt: string;
  negative_prompt: string;
  strength: number;
  num_inference_steps: number;
  seed: number;
}
type InpaintingCase = ReferenceCase & { kind: string; args: InpaintingArgs };

const FILE = 'test/fixtures/inpainting.safetensors';
const kinds = JSON.parse(loadSafetensors(FILE).metadata.kinds!) as Record<string, PipelineConfigs>;

/** The parts of a checkpoint with generated weights. */
async function loadParts(configs: PipelineConfigs) {
  const dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(dir, configs);
  const parts = {
    tokenizer: await CLIPTokenizer.fromPretrained(join(dir, 'tokenizer')),
    textEncoder: await CLIPTextModel.fromPretrained(join(dir, 'text_encoder')),
    unet: await UNet2DConditionModel.fromPretrained(join(dir, 'unet')),
    vae: await AutoencoderKL.fromPretrained(join(dir, 'vae')),
    scheduler: createScheduler(configs.scheduler._class_name as string, configs.scheduler),
  };
  await rm(dir, { recursive: true });
  return parts;
}

type Parts = Awaited<ReturnType<typeof loadParts>>;

/** Picture, picture without what is masked, and mask [1,h,w,1], as StableDiffusionInpaintPipeline prepares them. */
async function prepareImages({ vae }: Parts, { tensors }: InpaintingCase) {
  const pixels = { width: 24, height: 16, data: tensors.given_image!.data as Uint8Array };
  const maskPixels = { width: 24, height: 16, data: tensors.given_mask!.data as Uint8Array };
  const { scaleFactor: vaeScaleFactor } = vae;
  const mask = { vaeScaleFactor, doNormalize: false, doBinarize: true, doConvertGrayscale: true };
  const image = await new VaeImageProcessor({ vaeScaleFactor }).preprocess(pixels);
  const full = await new VaeImageProcessor(mask).preprocess(maskPixels);
  const masked = tf.tidy(() => tf.mul<tf.Tensor4D>(image, tf.sub(1, full)));
  const small = tf.tidy(() => tf.image.resizeNearestNeighbor(full, [8, 12]));
  full.dispose();
  return { image, masked, mask: small };
}

/** Inpainting, which no pipeline of the library does, of the parts that pipelines share; every latent, and the picture. */
async function inpaint(
  parts: Parts,
  reference: InpaintingCase,
): Promise<{ latents: Float32Array[]; image: tf.Tensor }> {
  const { tokenizer, textEncoder, unet, vae, scheduler } = parts;
  const {
    prompt,
    negative_prompt: negativePrompt,
    strength,
    num_inference_steps: numInferenceSteps,
    seed,
  } = reference.args;
  const nine = unet.parsed.inChannels === 9;
  const generator = new TorchGenerator(seed);
  const begin = applySchedule('inpaint', scheduler, { numInferenceSteps, strength });
  const { image, masked, mask } = await prepareImages(parts, reference);
  // a UNet of 9 channels needs the picture's latents only where the first ones are made of them
  const original = nine && strength === 1 ? undefined : encodeImage(vae, image, generator);
  const noise = prepareLatents<tf.Tensor4D>({ initNoiseSigma: 1 } as typeof scheduler, [1, 8, 12, 4], generator);
  const latents = prepareLatents(scheduler, noise.shape, generator, {
    noise,
    begin,
    original: strength === 1 ? undefined : original,
  });
  const maskedLatents = encodeImage(vae, masked, generator);
  const branches = encodePrompt('inpaint', tokenizer, textEncoder, {
    prompt,
    negativePrompt,
    numImagesPerPrompt: 1,
    guidance: true,
  });
  for (const tensors of Object.values(branches)) {
    Object.assign(tensors, nine && { inputChannels: tf.concat([mask, maskedLatents], 3) });
  }
  const conditioning = new Conditioning(branches);
  const denoiser = new GuidedDenoiser<tf.Tensor4D>(
    async (x, t, { encoderHiddenStates, cache, inputChannels }) => {
      const input = inputChannels ? tf.concat<tf.Tensor4D>([x, inputChannels as tf.Tensor4D], 3) : tf.clone(x);
      const output = await unet.predict(input, t, encoderHiddenStates, { cache });
      input.dispose();
      return output;
    },
    conditioning,
    { guidanceScale: 7.5 },
  );
  const mix = (x: tf.Tensor4D, { nextTimestep }: LoopStep): tf.Tensor4D => {
    const known = nextTimestep === undefined ? original! : scheduler.addNoise(original!, noise, nextTimestep);
    return tf.add(tf.mul(tf.sub(1, mask), known), tf.mul(mask, x));
  };
  const seen: Float32Array[] = [];
  const loop = denoisingLoop({ scheduler, denoiser, latents, begin, generator, mix: nine ? undefined : mix });
  const final = await runLoop(loop, {
    callbackOnStepEnd: (step) => void seen.push(step.latents.dataSync() as Float32Array),
  });
  const picture = decodeLatents(vae, final);
  conditioning.dispose();
  tf.dispose([image, masked, mask, noise, maskedLatents, final, ...(original ? [original] : [])]);
  return { latents: seen, image: picture };
}

describe('inpainting, made of the shared parts', () => {
  test.each(loadReferenceCases(FILE) as InpaintingCase[])(
    "$kind, $name: diffusers' latents and picture",
    async (reference) => {
      const parts = await loadParts(kinds[reference.kind]!);
      const { latents, image } = await inpaint(parts, reference);
      const { shape, data } = reference.tensors.latents!;
      // the reference keeps what the scheduler's step gives; the mask is mixed in after it
      const size = shape.slice(1).reduce((a, b) => a * b, 1);
      expect(latents).toHaveLength(shape[0]!);
      if (reference.kind === '9 channels') {
        const errors = latents.map((ours, i) =>
          relativeL2(ours, toNHWC((data as Float32Array).slice(i * size, (i + 1) * size), shape.slice(1))),
        );
        expect(Math.max(...errors)).toBeLessThan(1e-4);
      }
      expect(relativeL2(image.dataSync(), numbers(reference.tensors.image!))).toBeLessThan(1e-4);
      image.dispose();
      for (const model of [parts.textEncoder, parts.unet, parts.vae]) {
        model.dispose();
      }
    },
  );
});

const CONFIG = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear' };

function ready(steps = 6): EulerDiscreteScheduler {
  const scheduler = new EulerDiscreteScheduler(CONFIG);
  scheduler.setTimesteps(steps);
  return scheduler;
}

/** A loop whose denoiser predicts a tenth of the latents, and what it was called with. */
function simple(change: Partial<Parameters<typeof denoisingLoop<tf.Tensor>>[0]> = {}) {
  const calls: LoopStep[] = [];
  const scheduler = ready();
  const predict = async (x: tf.Tensor, _t: number, step: LoopStep) => {
    calls.push(step);
    await Promise.resolve();
    return tf.tidy(() => tf.mul(x, 0.1));
  };
  const inputs = {
    scheduler,
    denoiser: { predict },
    latents: tf.ones([2, 3]) as tf.Tensor,
    generator: new TorchGenerator(1),
  };
  return { loop: denoisingLoop({ ...inputs, ...change }), calls, scheduler };
}

describe('denoisingLoop', () => {
  test('takes the steps from begin to end, of latents of any rank', async () => {
    const { loop, calls, scheduler } = simple({ begin: 2, end: 5 });
    const final = await runLoop(loop);
    expect(final.shape).toEqual([2, 3]);
    expect(calls.map(({ step, total }) => [step, total])).toEqual([
      [0, 3],
      [1, 3],
      [2, 3],
    ]);
    expect(calls.map(({ timestep }) => timestep)).toEqual(scheduler.timesteps.slice(2, 5));
    expect(calls.map(({ nextTimestep }) => nextTimestep)).toEqual([...scheduler.timesteps.slice(3, 5), undefined]);
    expect(calls.map(({ sigma }) => sigma)).toEqual(Array.from(scheduler.sigmas.slice(2, 5)));
    final.dispose();
  });

  test('mixes after each step what the callback then sees', async () => {
    const seen: number[] = [];
    const { loop } = simple({ mix: (x, { step }) => tf.fill(x.shape, step) });
    const final = await runLoop(loop, { callbackOnStepEnd: ({ latents }) => void seen.push(latents.dataSync()[0]!) });
    expect(seen).toEqual([0, 1, 2, 3, 4, 5]);
    final.dispose();
  });

  test.each<[string, () => object]>([
    ['predicting fails', () => ({ denoiser: { predict: () => Promise.reject(new Error('no')) } })],
    [
      'mixing fails',
      () => ({
        mix: () => {
          throw new Error('no');
        },
      }),
    ],
    ['a prediction has another shape', () => ({ denoiser: { predict: () => tf.zeros([5]) } })],
  ])('leaves nothing behind when %s', async (_, change) => {
    await expect(runLoop(simple(change()).loop)).rejects.toThrow(/no|modelOutput expects/);
  });

  test('leaves nothing behind when it is stopped by its signal, its callback, or by nobody asking on', async () => {
    await expect(runLoop(simple({ signal: AbortSignal.abort() }).loop)).rejects.toThrow(AbortedError);
    const failing = () => {
      throw new Error('enough');
    };
    await expect(runLoop(simple().loop, { callbackOnStepEnd: failing as never })).rejects.toThrow('enough');
    const { loop } = simple();
    await loop.next();
    await loop.return(undefined as never);
    const stopping = simple();
    const final = await runLoop(stopping.loop, {
      callbackOnStepEnd: ({ step }) => ({ stop: step === 1 }) as StepDecision<never>,
    });
    expect(stopping.calls).toHaveLength(2);
    final.dispose();
  });
});

describe('GuidedDenoiser', () => {
  const branch = (value: number) => ({
    encoderHiddenStates: tf.fill<tf.Rank.R3>([2, 1, 1], value),
    pooled: tf.fill<tf.Rank.R2>([2, 1], 10 * value),
  });
  const three = () => new Conditioning({ conditional: branch(3), imageOnly: branch(2), unconditional: branch(1) });
  const at = (step: number, sigma = 10): LoopStep => ({ step, total: 4, sigma, timestep: 1, nextTimestep: undefined });

  test("three parts (InstructPix2Pix): each branch's own conditions, combined as the caller says", async () => {
    const conditioning = three();
    const batches: number[] = [];
    const denoiser = new GuidedDenoiser<tf.Tensor>(
      (x, _, { encoderHiddenStates, pooled }) => {
        batches.push(x.shape[0]!);
        return tf.tidy(() => tf.add(x, tf.add(tf.squeeze(encoderHiddenStates, [2]), pooled!)));
      },
      conditioning,
      {
        guidanceScale: 5,
        // text and picture of Brooks et al. 2023, equation 3
        combine: ({ conditional, imageOnly, unconditional }, scale) =>
          tf.add(
            tf.add(unconditional!, tf.mul(scale, tf.sub(conditional!, imageOnly!))),
            tf.mul(2, tf.sub(imageOnly!, unconditional!)),
          ),
      },
    );
    const x = tf.zeros([2, 1]);
    const output = await denoiser.predict(x, 1, at(0));
    expect(Array.from(output.dataSync())).toEqual([88, 88]); // 11 + 5 (33 - 22) + 2 (22 - 11)
    denoiser.change({ guidanceScale: 1 });
    const alone = await denoiser.predict(x, 1, at(1));
    expect(Array.from(alone.dataSync())).toEqual([33, 33]);
    expect(batches).toEqual([6, 2]);
    tf.dispose([x, output, alone]);
    conditioning.dispose();
  });

  test('a failing model and a failing combination leave nothing behind', async () => {
    const conditioning = three();
    const x = tf.zeros([2, 1]);
    const failing = () => {
      throw new Error('out of order');
    };
    const options = { guidanceScale: 2 };
    await expect(new GuidedDenoiser<tf.Tensor>(failing, conditioning, options).predict(x, 1, at(0))).rejects.toThrow(
      'out',
    );
    const combining = new GuidedDenoiser<tf.Tensor>((y) => tf.clone(y), conditioning, { ...options, combine: failing });
    await expect(combining.predict(x, 1, at(0))).rejects.toThrow('out');
    x.dispose();
    conditioning.dispose();
  });
});

describe('Conditioning', () => {
  const make = () =>
    new Conditioning({
      unconditional: { encoderHiddenStates: tf.zeros([1, 2, 3]) },
      conditional: { encoderHiddenStates: tf.ones([1, 2, 3]) },
    });

  test('has one cache for each way of taking branches, and new ones after other numbers', () => {
    const conditioning = make();
    const [both, alone] = [conditioning.take(), conditioning.take(['conditional'])];
    expect(both.encoderHiddenStates.shape).toEqual([2, 2, 3]);
    expect(conditioning.take()).toBe(both);
    expect(alone.cache).not.toBe(both.cache);
    conditioning.replace('test', 'encoderHiddenStates', 'embeds', tf.fill([2, 2, 3], 7));
    expect(conditioning.take().cache).not.toBe(both.cache);
    expect(conditioning.take(['unconditional']).encoderHiddenStates.dataSync()).toEqual(new Float32Array(6).fill(7));
    conditioning.dispose();
  });

  test('refuses other shapes, and goes on with what it has', () => {
    const conditioning = make();
    const wrong = [tf.zeros([1, 2, 3]), [1, 2], null];
    for (const tensor of wrong) {
      const replace = () => conditioning.replace('test', 'encoderHiddenStates', 'embeds', tensor as tf.Tensor);
      expect(replace).toThrow(InvalidArgumentError);
    }
    expect(conditioning.take().encoderHiddenStates.shape).toEqual([2, 2, 3]);
    conditioning.dispose();
  });
});

describe('latents and schedules', () => {
  test('shift and scale of a VAE: (x - shift) scale, and back', () => {
    const config = {
      block_out_channels: [8],
      down_block_types: ['DownEncoderBlock2D'],
      up_block_types: ['UpDecoderBlock2D'],
      norm_num_groups: 4,
    };
    const make = (extra: object) => AutoencoderKL.fromConfig({ ...config, ...extra }, { init: 'random', seed: 3 });
    const [plain, shifted] = [make({ scaling_factor: 1 }), make({ scaling_factor: 0.3611, shift_factor: 0.1159 })];
    const image = tf.randomUniform<tf.Rank.R4>([1, 4, 4, 3], -1, 1);
    const encode = (vae: AutoencoderKL) => encodeImage(vae, image, new TorchGenerator(1));
    const [raw, latents] = [encode(plain), encode(shifted)];
    const expected = raw.dataSync().map((x) => (x - 0.1159) * 0.3611);
    expect(relativeL2(latents.dataSync(), expected)).toBeLessThan(1e-6);
    const [a, b] = [decodeLatents(plain, raw), decodeLatents(shifted, latents)];
    expect(relativeL2(b.dataSync(), a.dataSync())).toBeLessThan(1e-5);
    tf.dispose([image, raw, latents, a, b]);
    plain.dispose();
    shifted.dispose();
  });

  test('mu shifts a flow schedule; strength counts calls of a second-order scheduler', () => {
    const flow = new FlowMatchEulerDiscreteScheduler({ use_dynamic_shifting: true });
    const twin = new FlowMatchEulerDiscreteScheduler({ use_dynamic_shifting: true });
    expect(applySchedule('test', flow, { numInferenceSteps: 4, mu: 0.7 })).toBe(0);
    twin.setTimesteps(4, { mu: 0.7 });
    expect(flow.timesteps).toEqual(twin.timesteps);
    const heun = createScheduler('HeunDiscreteScheduler', CONFIG);
    expect(applySchedule('test', heun, { numInferenceSteps: 10, strength: 0.3 })).toBe(14);
    expect(heun.beginIndex).toBe(14);
    expect(() => applySchedule('test', heun, { numInferenceSteps: 10, strength: 0.05 })).toThrow(
      /\[test\] strength expects/,
    );
  });
});
