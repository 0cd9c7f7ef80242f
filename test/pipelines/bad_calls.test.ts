import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { AbortedError, InvalidArgumentError, OutOfMemoryError } from '../../src/errors.js';
import {
  type DenoisingStep,
  type StableDiffusionOptions,
  StableDiffusionPipeline,
  type StepDecision,
} from '../../src/pipelines/index.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';
import { type PipelineConfigs, writeCheckpoint } from '../support/checkpoint.js';
import { loadSafetensors } from '../support/safetensors.js';

const { metadata } = loadSafetensors('test/fixtures/pipelines.safetensors');
const { sd15 } = JSON.parse(metadata.kinds!) as Record<string, PipelineConfigs>;
const SMALL = { height: 16, width: 16, numInferenceSteps: 2, seed: 3 };

let dir: string;
let pipe: StableDiffusionPipeline;
let tensors: number;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  await writeCheckpoint(dir, sd15!);
  pipe = await StableDiffusionPipeline.fromPretrained(dir, { backend: 'wasm' });
});

afterAll(async () => {
  pipe.dispose();
  expect(tf.memory().numTensors).toBe(0);
  await rm(dir, { recursive: true });
});

beforeEach(() => {
  tensors = tf.memory().numTensors;
});

afterEach(() => {
  expect(tf.memory().numTensors).toBe(tensors);
});

async function draw(options: StableDiffusionOptions = {}, prompt = 'a red circle'): Promise<Uint8Array> {
  const { images } = await pipe(prompt, { ...SMALL, ...options, outputType: 'image' });
  return images[0]!.data;
}

/** What the call fails with. */
function failure(prompt: unknown, options: unknown): Promise<unknown> {
  return pipe(prompt as string, options as StableDiffusionOptions).then(
    () => 'it drew',
    (error: unknown) => error,
  );
}

describe('options that cannot be used', () => {
  const text = 'a red circle';
  const embeds = (...shape: number[]) => tf.zeros(shape as [number, number, number]);
  const disposed = () => {
    const x = tf.zeros([1, 8, 8, 4]);
    x.dispose();
    return x;
  };
  const cases: [name: string, prompt: unknown, options: () => unknown][] = [
    ['a number as prompt', 5, () => ({})],
    ['no prompt', undefined, () => ({})],
    ['null as prompt', null, () => ({})],
    ['an object as prompt', { text }, () => ({})],
    ['an object that looks like a list as prompt', { length: 2 }, () => ({})],
    ['a number among the prompts', [text, 5], () => ({})],
    ['undefined among the prompts', [undefined], () => ({})],
    ["a number among prompts in the web UI's syntax", [text, 5], () => ({ promptSyntax: 'a1111' })],
    ['no prompts', [], () => ({})],
    ['a text as options', text, () => 'fast'],
    ['a list as options', text, () => [20]],
    ['a number as options', text, () => 20],
    ['a tensor as options', text, () => embeds(1, 77, 16)],
    ['prompt and promptEmbeds', text, () => ({ promptEmbeds: embeds(1, 77, 16) })],
    ['promptEmbeds that are a list', undefined, () => ({ promptEmbeds: [[1, 2]] })],
    ['promptEmbeds without a batch', undefined, () => ({ promptEmbeds: embeds(77, 16) })],
    ['promptEmbeds of another width', undefined, () => ({ promptEmbeds: embeds(1, 77, 12) })],
    ['promptEmbeds too long for a negative text', undefined, () => ({ promptEmbeds: embeds(1, 154, 16) })],
    ['promptEmbeds too short for any text', undefined, () => ({ promptEmbeds: embeds(1, 1, 16) })],
    ['promptEmbeds of no prompt', undefined, () => ({ promptEmbeds: embeds(0, 77, 16) })],
    ['negativePromptEmbeds of another length', text, () => ({ negativePromptEmbeds: embeds(1, 20, 16) })],
    ['negativePromptEmbeds of another batch', text, () => ({ negativePromptEmbeds: embeds(2, 77, 16) })],
    ['negativePromptEmbeds that are a number', text, () => ({ negativePromptEmbeds: 3 })],
    ['negativePrompt twice', text, () => ({ negativePrompt: '', negativePromptEmbeds: embeds(1, 77, 16) })],
    ['fewer negative prompts', [text, text], () => ({ negativePrompt: ['a'] })],
    ['a number as negative prompt', text, () => ({ negativePrompt: 7 })],
    ['a function as negative prompt', text, () => ({ negativePrompt: () => 'a' })],
    ['a height of 63', text, () => ({ height: 63 })],
    ['a height of 0', text, () => ({ height: 0 })],
    ['a negative height', text, () => ({ height: -16 })],
    ['a height of 16.5', text, () => ({ height: 16.5 })],
    ['a height of NaN', text, () => ({ height: Number.NaN })],
    ['a height as text', text, () => ({ height: '16' })],
    ['an infinite width', text, () => ({ width: Number.POSITIVE_INFINITY })],
    ['0 steps', text, () => ({ numInferenceSteps: 0 })],
    ['negative steps', text, () => ({ numInferenceSteps: -1 })],
    ['1.5 steps', text, () => ({ numInferenceSteps: 1.5 })],
    ['steps as text', text, () => ({ numInferenceSteps: '20' })],
    ['no pictures', text, () => ({ numImagesPerPrompt: 0 })],
    ['half a picture', text, () => ({ numImagesPerPrompt: 0.5 })],
    ['guidance of NaN', text, () => ({ guidanceScale: Number.NaN })],
    ['infinite guidance', text, () => ({ guidanceScale: Number.POSITIVE_INFINITY })],
    ['guidance as text', text, () => ({ guidanceScale: '7.5' })],
    ['a rescale of NaN', text, () => ({ guidanceRescale: Number.NaN })],
    ['eta above 1', text, () => ({ eta: 1.5 })],
    ['eta of NaN', text, () => ({ eta: Number.NaN })],
    ['a negative clipSkip', text, () => ({ clipSkip: -1 })],
    ['more layers to skip than there are', text, () => ({ clipSkip: 4 })],
    ['half a layer to skip', text, () => ({ clipSkip: 0.5 })],
    ['a number as timesteps', text, () => ({ timesteps: 5 })],
    ['texts as timesteps', text, () => ({ timesteps: ['a'] })],
    ['timesteps for a scheduler that takes none', text, () => ({ timesteps: [900, 500] })],
    ['sigmas for a scheduler that takes none', text, () => ({ sigmas: [9, 1] })],
    ['timesteps and sigmas', text, () => ({ timesteps: [900, 500], sigmas: [9, 1] })],
    ['a seed as text', text, () => ({ seed: 'abc' })],
    ['a seed of 1.5', text, () => ({ seed: 1.5 })],
    ['a seed of NaN', text, () => ({ seed: Number.NaN })],
    ['a seed of 2^64', text, () => ({ seed: 2n ** 64n })],
    ['two seeds for one picture', text, () => ({ seed: [1, 2] })],
    ['one seed in a list for two pictures', text, () => ({ seed: [1], numImagesPerPrompt: 2 })],
    ['seed and generator', text, () => ({ generator: new TorchGenerator(1) })],
    ['a number as generator', text, () => ({ seed: null, generator: 1 })],
    ['a number among generators', text, () => ({ seed: null, generator: [1] })],
    ['too many generators', text, () => ({ seed: null, generator: [new TorchGenerator(1), new TorchGenerator(2)] })],
    ['latents that are a list', text, () => ({ latents: [1, 2] })],
    ['latents of another size', text, () => ({ latents: tf.zeros([1, 8, 9, 4]) })],
    ['latents of another batch', text, () => ({ latents: tf.zeros([2, 8, 8, 4]) })],
    ['latents in torch order', text, () => ({ latents: tf.zeros([1, 4, 8, 8]) })],
    ['latents that were disposed of', text, () => ({ latents: disposed() })],
    ["Python's outputType", text, () => ({ outputType: 'pil' })],
    ['a prompt syntax that there is not', text, () => ({ promptSyntax: 'comfy' })],
    ['a callback that is no function', text, () => ({ callbackOnStepEnd: 'stop' })],
    ['progress that is no function', text, () => ({ onProgress: true })],
    ['a signal that is none', text, () => ({ signal: {} })],
    ['an object that says whether it was aborted', text, () => ({ signal: { aborted: false } })],
    ['a name that there is not', text, () => ({ numInferenceStep: 5 })],
    ["Python's name", text, () => ({ num_inference_steps: 5 })],
    ['a picture, which only other pipelines take', text, () => ({ image: 'a.png' })],
  ];

  test.each(cases)('%s: an InvalidArgumentError, and nothing is left behind', async (_, prompt, make) => {
    const given = make();
    const options =
      typeof given === 'object' && !Array.isArray(given) && !(given instanceof tf.Tensor)
        ? { ...SMALL, ...given }
        : given;
    const error = await failure(prompt, options);
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect((error as Error).message).toMatch(/^\[\w+(\.\w+)?\] .{20,}/);
    tf.dispose([given, ...Object.values((given as object) ?? {})].filter((value) => value instanceof tf.Tensor));
  });

  test.each([{ height: 2 ** 40 }, { width: 2 ** 52 }, { numImagesPerPrompt: 2 ** 40 }])(
    'more than any memory holds: %j',
    async (options) => {
      expect(await failure(text, { ...SMALL, ...options })).toBeInstanceOf(OutOfMemoryError);
    },
  );

  test('a name that there is not: the nearest that there is, before anything waits or is computed', async () => {
    expect(await failure(text, { numInferenceStep: 5 })).toHaveProperty(
      'message',
      `[StableDiffusionPipeline] there is no option "numInferenceStep"; did you mean 'numInferenceSteps'?`,
    );
    expect(await failure(text, { steps: 5 })).toHaveProperty(
      'message',
      expect.stringContaining("'numInferenceSteps'?"),
    );
    expect(await failure(text, { brightness: 5 })).toHaveProperty('message', expect.stringContaining('it takes'));
  });

  test('null stands for an option that was not given', async () => {
    const nulls = {
      negativePrompt: null,
      latents: null,
      clipSkip: null,
      timesteps: null,
      generator: null,
      signal: null,
    };
    expect(await draw(nulls as unknown as StableDiffusionOptions)).toEqual(await draw());
    const promptEmbeds = tf.zeros<tf.Rank.R3>([1, 77, 16]);
    const { images } = await pipe(null as unknown as undefined, { ...SMALL, promptEmbeds });
    expect(images).toHaveLength(1);
    promptEmbeds.dispose();
  });

  test('the pipeline draws as before afterwards', async () => {
    const before = await draw();
    await failure('a', { ...SMALL, promptEmbeds: 3 });
    await failure('a', { ...SMALL, callbackOnStepEnd: () => ({ latents: 3 }) });
    expect(await draw()).toEqual(before);
  });
});

describe('callbacks', () => {
  test.each(['callbackOnStepEnd', 'onProgress'])('what %s throws comes out as it is', async (name) => {
    const error = new Error('from the callback');
    const fail = () => {
      throw error;
    };
    expect(await failure('a', { ...SMALL, [name]: fail })).toBe(error);
  });

  test('what an asynchronous callback rejects with comes out as it is', async () => {
    const error = new Error('later');
    expect(await failure('a', { ...SMALL, callbackOnStepEnd: () => Promise.reject(error) })).toBe(error);
  });

  const wrong: [string, (step: DenoisingStep) => unknown][] = [
    ['of another shape', () => ({ latents: tf.zeros([1, 8, 8, 3]) })],
    ['that are a list', () => ({ latents: [1] })],
    [
      'that were disposed of',
      ({ latents }) => {
        const copy = tf.clone(latents);
        copy.dispose();
        return { latents: copy };
      },
    ],
  ];
  test.each(wrong)('latents %s are refused', async (_, callbackOnStepEnd) => {
    expect(await failure('a', { ...SMALL, callbackOnStepEnd })).toBeInstanceOf(InvalidArgumentError);
  });

  test.each([
    ['promptEmbeds of another shape', () => ({ promptEmbeds: tf.zeros([1, 77, 16]) })],
    ['promptEmbeds that are a list', () => ({ promptEmbeds: [1] })],
    ['guidanceScale that is no number', () => ({ guidanceScale: Number.NaN })],
    ['guidanceScale as text', () => ({ guidanceScale: '3' })],
  ])('%s is refused', async (_, callbackOnStepEnd) => {
    expect(await failure('a', { ...SMALL, callbackOnStepEnd })).toBeInstanceOf(InvalidArgumentError);
  });

  test('a call of the same pipeline, which would wait for itself, is refused; one after its end is not', async () => {
    const alone = await draw();
    let end = (): void => undefined;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    let [inner, later]: Promise<unknown>[] = [];
    const drawn = await draw({
      callbackOnStepEnd: () => {
        inner ??= failure('a', SMALL);
        later ??= ended.then(() => draw());
      },
    });
    end();
    expect(await inner).toBeInstanceOf(InvalidArgumentError);
    expect(drawn).toEqual(alone);
    expect(await later).toEqual(alone);
  });

  test("disposing of the pipeline's latents is refused", async () => {
    const callbackOnStepEnd = ({ latents }: DenoisingStep) => latents.dispose();
    expect(await failure('a', { ...SMALL, callbackOnStepEnd })).toBeInstanceOf(InvalidArgumentError);
  });

  test('other latents are gone on with', async () => {
    const options = { ...SMALL, outputType: 'latent' as const };
    const zeros = (step: number): { latents: tf.Tensor4D } | undefined =>
      step === 1 ? { latents: tf.zeros([1, 8, 8, 4]) } : undefined;
    const { images } = await pipe('a', { ...options, callbackOnStepEnd: ({ step }) => zeros(step) });
    const plain = await pipe('a', options);
    expect(plain.timings.steps).toHaveLength(3);
    expect(Array.from(images.dataSync())).not.toEqual(Array.from(plain.images.dataSync()));
    tf.dispose([images, plain.images]);

    const last = await pipe('a', {
      ...options,
      callbackOnStepEnd: ({ step }) => (step === 2 ? { latents: tf.ones([1, 8, 8, 4]) } : undefined),
    });
    expect(last.images.dataSync().every((x) => x === 1)).toBe(true);
    last.images.dispose();
  });

  test('stop ends the loop with the latents that it has', async () => {
    const options = { ...SMALL, numInferenceSteps: 5, outputType: 'latent' as const };
    let seen: ArrayLike<number> = [];
    const { images, timings } = await pipe('a', {
      ...options,
      callbackOnStepEnd: ({ step, latents }): StepDecision => {
        seen = latents.dataSync();
        return { stop: step === 1 };
      },
    });
    expect(timings.steps).toHaveLength(2);
    expect(images.dataSync()).toEqual(seen);
    images.dispose();
  });
});

describe('signals', () => {
  test('given before the call', async () => {
    const reason = new Error('enough');
    const error = await failure('a', { ...SMALL, signal: AbortSignal.abort(reason) });
    expect(error).toBeInstanceOf(AbortedError);
    expect((error as Error).cause).toBe(reason);
  });

  test.each([0, 1, 5])('during step %d: no step follows, nor the decoder', async (last) => {
    const controller = new AbortController();
    let steps = 0;
    const callbackOnStepEnd = ({ step }: DenoisingStep) => {
      steps++;
      if (step === last) {
        controller.abort();
      }
    };
    const options = { ...SMALL, numInferenceSteps: 5, signal: controller.signal, callbackOnStepEnd };
    expect(await failure('a', options)).toBeInstanceOf(AbortedError);
    expect(steps).toBe(last + 1);
  });

  test('from a timer, which the loop lets run', async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 1);
    const options = { ...SMALL, numInferenceSteps: 900, signal: controller.signal };
    expect(await failure('a', options)).toBeInstanceOf(AbortedError);
  });

  test('while the call waits for its turn: it fails at once, the others go on', async () => {
    const alone = await draw();
    const controller = new AbortController();
    const order: string[] = [];
    const note = (name: string) => (result: unknown) => {
      order.push(name);
      return result;
    };
    const first = draw({ onProgress: () => controller.abort() }).then(note('first'));
    const second = failure('a', { ...SMALL, signal: controller.signal }).then(note('second'));
    const third = draw().then(note('third'));
    expect(await second).toBeInstanceOf(AbortedError);
    expect(await first).toEqual(alone);
    expect(await third).toEqual(alone);
    expect(order).toEqual(['second', 'first', 'third']);
  });
});

describe('calls that overlap', () => {
  test('draw what they draw one after another', async () => {
    const settings = [{ seed: 1 }, { seed: 2, numInferenceSteps: 3 }, { seed: 1, guidanceScale: 1 }];
    const oneByOne: Uint8Array[] = [];
    for (const options of settings) {
      oneByOne.push(await draw(options));
    }
    expect(await Promise.all(settings.map((options) => draw(options)))).toEqual(oneByOne);
  });

  test('one that fails does not keep the others', async () => {
    const alone = await draw();
    const [bad, good] = await Promise.all([failure('a', { ...SMALL, height: 3 }), draw()]);
    expect(bad).toBeInstanceOf(InvalidArgumentError);
    expect(good).toEqual(alone);
  });
});
