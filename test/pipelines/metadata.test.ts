import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import sharp from 'sharp';
import { applyTokenMerging, removeTokenMerging } from '../../src/attention/index.js';
import { NotReproducibleError } from '../../src/errors.js';
import { type GeneratedImage, PARAMETERS_KEY, parseParameters, readParameters } from '../../src/images/index.js';
import { FullDelta } from '../../src/nn/index.js';
import {
  applyRedrawing,
  redraw,
  StableDiffusionImg2ImgPipeline,
  StableDiffusionInpaintPipeline,
  StableDiffusionPipeline,
  withInputs,
} from '../../src/pipelines/index.js';
import { createScheduler, schedulerNames } from '../../src/schedulers/index.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { loadSafetensors } from '../support/safetensors.js';

const { metadata } = loadSafetensors('test/fixtures/pipelines.safetensors');
const { sd15 } = JSON.parse(metadata.kinds!) as Record<string, PipelineConfigs>;

let dir: string;
let pipe: StableDiffusionPipeline;
let img2img: StableDiffusionImg2ImgPipeline;
let inpaint: StableDiffusionInpaintPipeline;
/** The same checkpoint, as another program loads it. */
let others: {
  StableDiffusionPipeline: StableDiffusionPipeline;
  StableDiffusionImg2ImgPipeline: StableDiffusionImg2ImgPipeline;
  StableDiffusionInpaintPipeline: StableDiffusionInpaintPipeline;
};
let picture: string;
let mask: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(dir, sd15!);
  pipe = await StableDiffusionPipeline.fromPretrained(dir, { backend: 'wasm' });
  img2img = await StableDiffusionImg2ImgPipeline.fromPretrained(dir);
  inpaint = await StableDiffusionInpaintPipeline.fromPretrained(dir);
  others = {
    StableDiffusionPipeline: await StableDiffusionPipeline.fromPretrained(dir),
    StableDiffusionImg2ImgPipeline: await StableDiffusionImg2ImgPipeline.fromPretrained(dir),
    StableDiffusionInpaintPipeline: await StableDiffusionInpaintPipeline.fromPretrained(dir),
  };
  mask = join(dir, 'mask.png');
  await sharp(Buffer.alloc(256).fill(255, 80, 200), { raw: { width: 16, height: 16, channels: 1 } }).toFile(mask);
  picture = join(dir, 'a picture, of noise.png');
  const data = Uint8Array.from({ length: 16 * 16 * 3 }, (_, i) => (i * 37) % 251);
  await sharp(data, { raw: { width: 16, height: 16, channels: 3 } })
    .png()
    .toFile(picture);
});

afterAll(async () => {
  for (const loaded of [pipe, img2img, inpaint, ...Object.values(others)]) {
    loaded.dispose();
  }
  await rm(dir, { recursive: true });
});

test('a picture carries the prompt and settings, by which it can be drawn again', async () => {
  const options = {
    negativePrompt: 'a square',
    height: 16,
    width: 24,
    numInferenceSteps: 4,
    guidanceScale: 5.5,
    seed: 7,
  };
  const { images, seeds } = await pipe('a red circle', { ...options, clipSkip: 1 });
  expect(seeds).toEqual([7n]);
  const [image] = images;
  // PNDM calls the model once more than it makes steps; the steps that were asked for are what counts
  expect(image!.metadata.parameters).toBe(
    'a red circle\nNegative prompt: a square\n' +
      `Steps: 4, Sampler: PLMS, CFG scale: 5.5, Seed: 7, Size: 24x16, Model: ${basename(dir)}, Clip skip: 2, ` +
      'Pipeline: StableDiffusionPipeline, Scheduler: PNDMScheduler, Attention: auto, dtype: float32, backend: wasm, ' +
      'RNG: CPU, Version: tfjs-diffusers',
  );
  const { data, info } = await sharp(await image!.toBuffer('png'))
    .raw()
    .toBuffer({ resolveWithObject: true });
  expect([info.width, info.height, info.channels]).toEqual([24, 16, 3]);
  expect(new Uint8Array(data)).toEqual(new Uint8Array(image!.data));
});

test('every picture of a batch says its prompt, negative prompt and seed', async () => {
  const own = pipe.scheduler;
  pipe.scheduler = createScheduler('EulerDiscreteScheduler', own.config, { use_karras_sigmas: true });
  const { images, seeds } = await pipe(['one', 'two'], {
    ...{ height: 16, width: 16, numInferenceSteps: 2, numImagesPerPrompt: 2, guidanceRescale: 0.5 },
    negativePrompt: ['not one', 'not two'],
    seed: [1, 2, 3, 2n ** 63n],
  });
  pipe.scheduler = own;
  expect(seeds).toEqual([1n, 2n, 3n, 2n ** 63n]);
  const texts = images.map((image) => image.metadata.parameters!);
  expect(texts.map((text) => text.split('\n')[0])).toEqual(['one', 'one', 'two', 'two']);
  expect(texts.map((text) => text.split('\n')[1])).toEqual(
    ['not one', 'not one', 'not two', 'not two'].map((negative) => `Negative prompt: ${negative}`),
  );
  expect(texts.map((text) => text.match(/Seed: (\d+)/)![1])).toEqual(['1', '2', '3', '9223372036854775808']);
  for (const text of texts) {
    expect(text).toContain('Sampler: Euler, ');
    expect(text).toContain('Schedule type: Karras');
    expect(text).toContain('CFG Rescale: 0.5');
  }
});

test('a seed that nobody chose is told, and draws the same picture again', async () => {
  const options = { height: 16, width: 16, numInferenceSteps: 2 };
  const { images, seeds } = await pipe('a', options);
  expect(images[0]!.metadata.parameters).toContain(`Seed: ${seeds[0]}`);
  const again = await pipe('a', { ...options, seed: seeds[0]! });
  expect(again.images[0]!.data).toEqual(images[0]!.data);
  const other = await pipe('a', options);
  expect(other.seeds).not.toEqual(seeds);
});

test('one generator for a batch goes on where it stopped; one for each picture gives what each gives alone', async () => {
  const options = { height: 16, width: 16, numInferenceSteps: 2 };
  const alone = await Promise.all([5, 6].map((seed) => pipe('a', { ...options, seed })));
  const each = await pipe(['a', 'a'], { ...options, generator: [new TorchGenerator(5), new TorchGenerator(6)] });
  for (const [i, image] of each.images.entries()) {
    const difference = image.data.map((value, at) => Math.abs(value - alone[i]!.images[0]!.data[at]!));
    expect(Math.max(...difference)).toBeLessThanOrEqual(1);
  }
  const generator = new TorchGenerator(5);
  const first = await pipe('a', { ...options, generator });
  const second = await pipe('a', { ...options, generator });
  expect(first.images[0]!.data).toEqual(alone[0]!.images[0]!.data);
  expect(second.images[0]!.data).not.toEqual(first.images[0]!.data);
});

const SMALL = { height: 16, width: 16, numInferenceSteps: 3, seed: 11 };

type Drawn = { data: Uint8Array };

/** What the bytes of a picture's file say, drawn by a pipeline that knows nothing else. */
async function drawAgain(image: GeneratedImage, files: readonly string[] = []): Promise<Drawn> {
  const text = (await readParameters(await image.toBuffer('png')))!;
  const again = await withInputs(redraw(text), files);
  const other = others[again.pipeline as keyof typeof others];
  applyRedrawing(other, again);
  const { images } = await other.run(again.prompt, again.options as never);
  return images[again.index]!;
}

async function expectRedrawn(images: readonly GeneratedImage[], files: readonly string[] = []): Promise<void> {
  for (const image of images) {
    expect((await drawAgain(image, files)).data).toEqual(image.data);
  }
}

/** Options with a value that changes the picture; a string says why there is no picture to draw again, or what is said. */
const OPTIONS: Record<string, object | string> = {
  numInferenceSteps: { numInferenceSteps: 4 },
  timesteps: { timesteps: [901, 401, 101], scheduler: 'euler' },
  sigmas: { sigmas: [9.25, 2, 0.4], scheduler: 'euler' },
  guidanceScale: { guidanceScale: 3.3 },
  guidanceRescale: { guidanceRescale: 0.7 },
  negativeGuidanceMinSigma: { negativeGuidanceMinSigma: 6, numInferenceSteps: 4 },
  negativeGuidanceSteps: { negativeGuidanceMinSigma: 6, negativeGuidanceSteps: 'all', numInferenceSteps: 4 },
  skipEarlyCond: { skipEarlyCond: 0.5 },
  numImagesPerPrompt: { numImagesPerPrompt: 2 },
  seed: { seed: 2n ** 63n + 1n },
  generator: { seed: undefined, generator: () => new TorchGenerator(31) },
  negativePrompt: { negativePrompt: 'a blue square, small' },
  clipSkip: { clipSkip: 1 },
  promptSyntax: { promptSyntax: 'a1111' },
  eta: { eta: 0.6, scheduler: 'ddim' },
  height: { height: 24 },
  width: { width: 24 },
  strength: { strength: 0.5 },
  image: { strength: 1 },
  maskImage: {},
  maskedImageLatents: 'a tensor',
  paddingMaskCrop: { paddingMaskCrop: 1 },
  callbackOnStepEnd: { callbackOnStepEnd: ({ step }: { step: number }) => ({ stop: step === 1 }) },
  latents: 'a tensor',
  promptEmbeds: 'a tensor',
  negativePromptEmbeds: 'a tensor',
  outputType: 'gives tensors, which carry no text',
  signal: 'changes nothing',
  onProgress: 'changes nothing',
  preview: 'changes nothing',
  crossAttentionKwargs: 'changes adapters alone; test/adapters draws with it again',
};

/** Draws with one option; the pipeline's own scheduler is back afterwards. */
async function drawWith(
  drawer: StableDiffusionPipeline | StableDiffusionImg2ImgPipeline | StableDiffusionInpaintPipeline,
  row: { scheduler?: string; generator?: () => TorchGenerator },
): Promise<GeneratedImage[]> {
  const { scheduler, generator, ...options } = row;
  const own = drawer.scheduler;
  drawer.scheduler = scheduler ? createScheduler(scheduler, own.config) : own;
  const { height, width, ...rest } = SMALL;
  const starts = new Map<object, object>([
    [pipe, { height, width }],
    [img2img, { image: picture }],
    [inpaint, { image: picture, maskImage: mask, strength: 0.7, height, width }],
  ]);
  const given = { ...rest, ...starts.get(drawer), ...options, ...(generator ? { generator: generator() } : {}) };
  const { images } = await drawer.run('a (red:1.4) circle', given as never).finally(() => {
    drawer.scheduler = own;
  });
  return images;
}

test.each(['text', 'image', 'masked image'])(
  'every option of %s to picture is in the metadata, which draws the picture again',
  async (from) => {
    const drawer = { text: pipe, image: img2img, 'masked image': inpaint }[from]!;
    const files = { text: [], image: [picture], 'masked image': [picture, mask] }[from]!;
    const plain = (await drawWith(drawer, {}))[0]!;
    for (const name of Object.keys(Reflect.get(drawer, 'checks') as object)) {
      const row = OPTIONS[name];
      if (row === undefined) {
        throw new Error(`the option ${name} has no row in this test`);
      }
      if (typeof row === 'object') {
        const images = await drawWith(drawer, row);
        if (!['image', 'maskImage', 'height', 'width', 'numImagesPerPrompt'].includes(name)) {
          expect({ name, same: Buffer.compare(images[0]!.data, plain.data) === 0 }).toEqual({ name, same: false });
        }
        await expectRedrawn(images, files);
      }
    }
  },
);

test.each(schedulerNames().shortNames)('the scheduler %s is drawn with again', async (name) => {
  const [image] = await drawWith(pipe, { scheduler: name });
  await expectRedrawn([image!]);
});

test('samplers and schedules have the names of the web UI', async () => {
  const said = async (name: string) => {
    const [image] = await drawWith(pipe, { scheduler: name });
    const { Sampler: sampler, 'Schedule type': type } = parse(image!);
    return [sampler, type];
  };
  expect(await said('dpmpp_2m_sde_karras')).toEqual(['DPM++ 2M SDE', 'Karras']);
  expect(await said('dpmpp_2m')).toEqual(['DPM++ 2M', undefined]);
  expect(await said('dpmpp_sde_karras')).toEqual(['DPM++ SDE', 'Karras']);
});

const parse = (image: GeneratedImage) => parseParameters(image.metadata[PARAMETERS_KEY]!).settings;

test.each([
  { use_exponential_sigmas: true, sigma_max: 9.5, sigma_min: 0.2 },
  { use_beta_sigmas: true },
  { solver_order: 3, algorithm_type: 'sde-dpmsolver++', final_sigmas_type: 'sigma_min' },
  { timestep_spacing: 'trailing', rescale_betas_zero_snr: true },
  { beta_end: 0.0135, prediction_type: 'v_prediction' },
])('entries of a scheduler are told: %j', async (entries) => {
  const own = pipe.scheduler;
  const name = 'sigma_max' in entries ? 'EulerDiscreteScheduler' : 'DPMSolverMultistepScheduler';
  pipe.scheduler = createScheduler(name, own.config, entries);
  const { images } = await pipe('a', SMALL);
  pipe.scheduler = own;
  await expectRedrawn(images);
});

test('prompts, seeds and negative prompts of a batch, however they are written', async () => {
  const prompts = [' a\nSteps: 3, Seed: 4, Size: 1x1', 'b\nNegative prompt: c', 'd'];
  const options = { ...SMALL, promptSyntax: 'a1111' as const, negativePrompt: ['x, "y"', '', ' z '] };
  await expectRedrawn((await pipe(prompts, { ...options, seed: [1, 2n ** 64n - 1n, 3] })).images);
  await expectRedrawn((await pipe(prompts, options)).images);
});

test('token merging, attention and tiles', async () => {
  applyTokenMerging(pipe, { ratio: 0.5, seed: 5, mergeMlp: true });
  pipe.setAttention({ name: 'sub-quadratic', queryChunkSize: 8 });
  pipe.vae.enableTiling();
  pipe.vae.tileSampleMinSize = 8;
  try {
    const { images } = await pipe('a', SMALL);
    expect(parse(images[0]!)).toMatchObject({ 'Token merging ratio': '0.5' });
    await expectRedrawn(images);
  } finally {
    removeTokenMerging(pipe);
    pipe.setAttention('auto');
    pipe.vae.disableTiling();
    others.StableDiffusionPipeline.vae.disableTiling();
  }
});

test('a call that was stopped says how far it came', async () => {
  const stop = ({ step }: { step: number }) => ({ stop: step === 2 });
  const own = pipe.scheduler;
  pipe.scheduler = createScheduler('euler', own.config);
  const { images } = await pipe('a', { ...SMALL, numInferenceSteps: 10, callbackOnStepEnd: stop });
  pipe.scheduler = own;
  expect(parse(images[0]!)).toMatchObject({ Steps: '3', 'Stopped after': '3', numInferenceSteps: '10' });
  await expectRedrawn(images);
});

test('what no text can hold is named, and refused', async () => {
  const used = new TorchGenerator(1);
  used.randn(4);
  const promptEmbeds = tf.ones<tf.Rank.R3>([1, 77, 16]);
  const latents = tf.ones<tf.Rank.R4>([1, 8, 8, 4]);
  const { seed: _, ...unseeded } = SMALL;
  const refused = async (prompt: string | undefined, options: object, name: string) => {
    const { images } = await pipe(prompt, { ...unseeded, ...options });
    const text = images[0]!.metadata.parameters!;
    expect(parseParameters(text).settings['Not reproducible']).toBe(name);
    expect(() => redraw(text)).toThrow(NotReproducibleError);
    expect(() => redraw(text)).toThrow(name);
  };
  await refused('a', { generator: used }, 'generator');
  await refused('a', { latents }, 'latents');
  await refused(undefined, { promptEmbeds, negativePromptEmbeds: promptEmbeds }, 'promptEmbeds, negativePromptEmbeds');
  await refused('a', { callbackOnStepEnd: () => ({ guidanceScale: 2 }) }, 'callbackOnStepEnd');
  const layer = pipe.unet.layers.get('conv_in')!;
  const delta = tf.zeros(pipe.unet.parameters.find(({ path }) => path === 'conv_in.weight')!.shape);
  layer.adapters = [{ name: 'own', change: new FullDelta(delta), scale: 1 }];
  await refused('a', {}, 'adapters');
  layer.adapters = [];
  tf.dispose([promptEmbeds, latents, delta]);
});

test('input pictures are told by name and content, and never opened by name', async () => {
  const [image] = await drawWith(img2img, {});
  const said = JSON.parse(parse(image!).image!) as { name: string; sha256: string }[];
  expect(said).toEqual([{ name: basename(picture), sha256: expect.stringMatching(/^[0-9a-f]{64}$/) }]);
  const again = redraw(image!.metadata.parameters!);
  expect(again.options.image).toBeUndefined();
  await expect(withInputs(again, [])).rejects.toThrow(/1 input pictures: 'a picture, of noise.png' \(SHA-256/);
  const wrong = withInputs(again, [new Uint8Array([1, 2])]);
  await expect(wrong).rejects.toThrow(NotReproducibleError);
  await expect(wrong).rejects.toThrow('is not the picture');
  const { images } = await img2img('a', { image: { width: 16, height: 16, data: new Uint8Array(768) }, strength: 1 });
  expect(() => redraw(images[0]!.metadata.parameters!)).toThrow('image');
});

test('texts that this library did not write, and entries out of range, are refused', async () => {
  expect(() => redraw('a\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512')).toThrow(
    NotReproducibleError,
  );
  const [image] = await drawWith(pipe, { scheduler: 'euler_karras' });
  const text = image!.metadata.parameters!;
  const changed = (from: string | RegExp, to: string) => () => redraw(text.replace(from, to));
  expect(changed('Steps: 3', 'Steps: 0')).toThrow('[redraw] Steps expects a whole number of at least 1, got 0');
  expect(changed('Seed: 11', 'Seed: x')).toThrow('[redraw] Seed expects');
  expect(changed(/Scheduler: \w+/, 'Scheduler: Own')).toThrow('[redraw] Scheduler expects one of');
  expect(changed('use_karras_sigmas', 'use_karas_sigmas')).toThrow("did you mean 'use_karras_sigmas'?");
  expect(changed(/Attention: \w+/, 'Attention: none at all')).toThrow("'none at all' is not known");
});
