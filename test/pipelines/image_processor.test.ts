import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../src/errors.js';
import { GeneratedImage, pickBackend } from '../../src/index.js';
import { type ImageInput, packLatents, unpackLatents, VaeImageProcessor } from '../../src/pipelines/index.js';
import { numbers, tensor } from '../support/reference_cases.js';
import { loadSafetensors, type TestTensor } from '../support/safetensors.js';
import { camelCased } from '../support/scheduler_case.js';

interface ProcessorCase {
  name: string;
  options: Record<string, unknown>;
  args: Record<string, unknown> & { crops_coords?: [number, number, number, number] };
}

const { tensors, metadata } = loadSafetensors('test/fixtures/image_processor.safetensors');
const cases = JSON.parse(metadata.cases!) as ProcessorCase[];

let before: number;
beforeAll(() => pickBackend('wasm'));
beforeEach(() => {
  before = tf.memory().numTensors;
});
afterEach(() => {
  expect(tf.memory().numTensors).toBe(before);
});

/** A picture of the reference: 8-bit pixels, or a tensor of floats. */
function input({ shape, data }: TestTensor): ImageInput {
  const [height, width, channels] = shape as [number, number, number];
  return data instanceof Uint8Array
    ? { width, height, data }
    : tf.tensor3d(data as Float32Array, [height, width, channels]);
}

const largest = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  expect(a).toHaveLength(b.length);
  return Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)));
};

describe("diffusers' VaeImageProcessor", () => {
  test.each(cases.map((reference, i) => [reference.name, reference, i] as const))(
    '%s',
    async (_, { options, args }, i) => {
      const pictures = Object.keys(tensors)
        .filter((name) => name.startsWith(`${i}.in`))
        .map((name) => input(tensors[name]!));
      const { cropsCoords, ...rest } = camelCased(args) as { cropsCoords?: number[] };
      const [left, top, right, bottom] = cropsCoords ?? [];
      const box = cropsCoords && { cropsCoords: { left: left!, top: top!, right: right!, bottom: bottom! } };
      const { doConvertRgb, ...ours } = camelCased(options);
      const output = await new VaeImageProcessor(ours).preprocess(pictures, { ...rest, ...box });
      const [n, c, h, w] = tensors[`${i}.out`]!.shape;
      expect(output.shape).toEqual([n, h, w, c]);
      // the same 8-bit numbers: a level of 1/255 more or less would be 0.0078
      expect(largest(output.dataSync(), numbers(tensors[`${i}.out`]!))).toBeLessThan(1e-6);
      tf.dispose([output, pictures.filter((picture) => picture instanceof tf.Tensor)]);
    },
  );
});

describe('what a picture may be', () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
  });
  afterAll(() => rm(dir, { recursive: true }));

  const processor = new VaeImageProcessor({ vaeScaleFactor: 1 });
  const preprocess = async (image: ImageInput | ImageInput[]): Promise<number[]> => {
    const output = await processor.preprocess(image);
    const data = Array.from(output.dataSync());
    output.dispose();
    return data;
  };

  test.each(['rgba', 'turned', 'grey'])("a file, as bytes and by its path: Pillow's pixels of %s", async (name) => {
    const bytes = Buffer.from(tensors[`${name}.file`]!.data as Uint8Array);
    const pixels = tensors[`${name}.pixels`]!.data as Uint8Array;
    const expected = Array.from(pixels, (value) => 2 * Math.fround(value / 255) - 1);
    expect(largest(await preprocess(bytes), expected)).toBeLessThan(1e-6);
    const path = join(dir, `${name}.png`);
    await writeFile(path, bytes);
    expect(largest(await preprocess(path), expected)).toBeLessThan(1e-6);
    expect(await preprocess([bytes, path])).toHaveLength(2 * expected.length);
  });

  test('a GeneratedImage, RGB, RGBA, grey, and a tensor of the same numbers', async () => {
    const rgb = Uint8Array.from({ length: 4 * 2 * 3 }, (_, i) => i * 9);
    const size = { width: 4, height: 2 };
    const expected = await preprocess(new GeneratedImage(4, 2, rgb));
    expect(await preprocess({ ...size, data: rgb })).toEqual(expected);
    expect(await preprocess({ ...size, data: new Uint8ClampedArray(rgb) })).toEqual(expected);
    const rgba = Uint8Array.from({ length: 4 * 2 * 4 }, (_, i) => (i % 4 === 3 ? 77 : (i - Math.floor(i / 4)) * 9));
    expect(await preprocess({ ...size, data: rgba })).toEqual(expected);
    const grey = Uint8Array.from({ length: 8 }, (_, i) => i * 9);
    const spread = Uint8Array.from({ length: 24 }, (_, i) => Math.floor(i / 3) * 9);
    expect(await preprocess({ ...size, data: grey })).toEqual(await preprocess({ ...size, data: spread }));
    const floats = tf.tidy(() => tf.div(tf.tensor3d(Float32Array.from(rgb), [2, 4, 3]), 255));
    expect(largest(await preprocess(floats), expected)).toBeLessThan(1e-6);
    floats.dispose();
  });

  test('latents pass as they are', async () => {
    const latents = tf.randomNormal([2, 3, 5, 4]);
    const output = await processor.preprocess(latents);
    expect(output.dataSync()).toEqual(latents.dataSync());
    tf.dispose([latents, output]);
  });

  const data = new Uint8Array(12);
  const wrong: [string, unknown, unknown?][] = [
    ['nothing', undefined],
    ['null', null],
    ['a number', 3],
    ['an empty list', []],
    ['a path of no file', '/no/such/picture.png'],
    ['bytes that are no picture', Buffer.from('not a picture')],
    ['no bytes', Buffer.alloc(0)],
    ['too few pixels', { width: 4, height: 4, data }],
    ['two channels', { width: 3, height: 2, data }],
    ['a size of 0', { width: 0, height: 2, data }],
    ['pixels in a list', { width: 2, height: 2, data: Array.from(data) }],
    ['a mode that there is not', { width: 2, height: 2, data }, { resizeMode: 'stretch' }],
    ['a height beyond all memory', { width: 2, height: 2, data }, { height: 2 ** 40 }],
    ['a picture beyond all memory', { width: 2, height: 2, data }, { height: 60_000, width: 60_000 }],
    ['a line cut to a column', { width: 12, height: 1, data }, { height: 60_000, width: 8, resizeMode: 'crop' }],
    ['a line that vanishes', { width: 12, height: 1, data }, { height: 8, width: 8, resizeMode: 'fill' }],
    ['options that are a text', { width: 2, height: 2, data }, 'crop'],
    ['a width of 0', { width: 2, height: 2, data }, { width: 0 }],
    ['an option that there is not', { width: 2, height: 2, data }, { hight: 8 }],
    ['a region without its edges', { width: 2, height: 2, data }, { cropsCoords: [0, 0, 1, 1] }],
    ['an empty region', { width: 2, height: 2, data }, { cropsCoords: { left: 1, top: 0, right: 1, bottom: 2 } }],
    [
      'a region between pixels',
      { width: 2, height: 2, data },
      { cropsCoords: { left: 0.5, top: 0, right: 2, bottom: 2 } },
    ],
  ];
  test.each(wrong)('%s: an InvalidArgumentError that says what is expected', async (_, image, options = {}) => {
    const error = await processor.preprocess(image as ImageInput, options as object).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect((error as Error).message).toMatch(/^\[\w+(\.\w+)?\] .{15,}/);
  });

  test('tensors of other ranks, channels and shapes, tensors among pictures, and modes for tensors are refused', async () => {
    const make = (shape: number[]) => tf.zeros(shape);
    const all = [make([4, 4]), make([4, 4, 2]), make([4, 4, 3]), make([4, 5, 3])];
    const [flat, two, good, other] = all as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
    for (const image of [flat, two, [good, other], [good, { width: 2, height: 2, data }]]) {
      await expect(processor.preprocess(image)).rejects.toThrow(InvalidArgumentError);
    }
    await expect(processor.preprocess(good, { resizeMode: 'fill' })).rejects.toThrow(/'default' for tensors/);
    const whole = { left: 0, top: 0, right: 2, bottom: 2 };
    await expect(processor.preprocess(good, { cropsCoords: whole })).rejects.toThrow(/cropsCoords/);
    tf.dispose(all);
  });
});

describe('packLatents', () => {
  test("gives FLUX's tokens, and unpackLatents the latents again", () => {
    const latents = tensor<tf.Tensor4D>(tensors.latents!);
    const packed = packLatents(latents);
    const [b, n, size] = tensors.packed!.shape;
    expect(packed.shape).toEqual([b, n, size]);
    expect(packed.dataSync()).toEqual(tensors.packed!.data);
    const again = unpackLatents(packed, { height: 6, width: 8 });
    expect(again.dataSync()).toEqual(latents.dataSync());
    expect(() => unpackLatents(packed, { height: 8, width: 8 })).toThrow(InvalidArgumentError);
    const odd = tf.zeros<tf.Rank.R4>([1, 3, 4, 4]);
    expect(() => packLatents(odd)).toThrow(/multiples of 2/);
    tf.dispose([latents, packed, again, odd]);
  });
});
