import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import sharp from 'sharp';
import { FileWriteError, InvalidArgumentError } from '../../src/errors.js';
import {
  checkImagePath,
  GeneratedImage,
  type ImageFormat,
  LiveDisplay,
  readParameters,
} from '../../src/images/index.js';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'images-'));
});
afterEach(() => rm(dir, { recursive: true }));

/** A smooth picture, so that lossy formats stay close. */
function gradient(width: number, height: number, metadata?: Record<string, string>): GeneratedImage {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const pixel = Math.floor(i / 3);
    const x = pixel % width;
    const y = Math.floor(pixel / width);
    return [(255 * x) / width, (255 * y) / height, (127 * (x + y)) / (width + height)][i % 3]!;
  });
  return new GeneratedImage(width, height, data, metadata);
}

async function decode(bytes: Uint8Array | string): Promise<{ width: number; height: number; data: Uint8Array }> {
  const { data, info } = await sharp(bytes).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, data: new Uint8Array(data) };
}

const PROMPT = 'a star\nNegative prompt: blurry, dark\nSteps: 20, Sampler: Euler, CFG scale: 7.5, Seed: 0, Size: 10x6';
const FOREIGN = 'ein großer Stern ⭐ 星 🌟\nSteps: 20, Sampler: Euler, CFG scale: 7.5';

describe('GeneratedImage', () => {
  test('PNG keeps every pixel', async () => {
    const image = gradient(31, 17);
    expect(await decode(await image.toBuffer('png'))).toEqual({ width: 31, height: 17, data: image.data });
  });

  test.each<[ImageFormat]>([['jpeg'], ['webp']])('%s keeps the picture within a few levels', async (format) => {
    const image = gradient(64, 48);
    const buffer = await image.toBuffer(format);
    expect((await sharp(buffer).metadata()).format).toBe(format);
    const { width, height, data } = await decode(buffer);
    expect([width, height]).toEqual([64, 48]);
    const mean = data.reduce((sum, value, i) => sum + Math.abs(value - image.data[i]!), 0) / data.length;
    expect(mean).toBeLessThan(3);
    const small = await image.toBuffer(format, { quality: 10 });
    expect(small.length).toBeLessThan(buffer.length);
  });

  test('numbers become levels as in diffusers: scaled, ties to even, clipped', () => {
    const levels = [0, 1, 0.5, 1.5 / 255, 2.5 / 255, 3.5 / 255, -0.2, 1.7, Number.NaN];
    const image = GeneratedImage.fromFloats(Float32Array.from(levels), 3, 1);
    // numpy: (np.float32(levels).clip(0, 1) * 255).round().astype('uint8')
    expect([...image.data]).toEqual([0, 255, 128, 2, 2, 4, 0, 255, 0]);
  });

  test.each<[ImageFormat, number, number]>([
    ['png', 10, 6],
    ['jpeg', 10, 6],
    ['webp', 10, 6],
    ['webp', 33, 65],
  ])('%s of %d x %d carries prompt and settings, in any script', async (format, width, height) => {
    for (const parameters of [PROMPT, FOREIGN]) {
      const image = gradient(width, height, { parameters });
      const buffer = await image.toBuffer(format);
      expect(await readParameters(buffer)).toBe(parameters);
      const metadata = await sharp(buffer).metadata();
      expect([metadata.format, metadata.width, metadata.height]).toEqual([format, width, height]);
      const { data } = await decode(buffer);
      expect(data).toEqual((await decode(await gradient(width, height).toBuffer(format))).data);
    }
  });

  test('PNG text is what other readers see, all keys of it', async () => {
    const metadata = { parameters: PROMPT, Software: 'tfjs-diffusers', Title: '星' };
    const { comments } = await sharp(await gradient(4, 4, metadata).toBuffer()).metadata();
    expect(comments).toEqual(Object.entries(metadata).map(([keyword, text]) => ({ keyword, text })));
  });

  test('without metadata there is none', async () => {
    for (const format of ['png', 'jpeg', 'webp'] as const) {
      expect(await readParameters(await gradient(4, 4).toBuffer(format))).toBeUndefined();
    }
  });

  test.each<[string, () => unknown, string]>([
    ['a short array', () => new GeneratedImage(2, 2, new Uint8Array(4)), '2 x 2 RGB pixels take 12 numbers, got 4'],
    ['a long array', () => GeneratedImage.fromFloats(new Float32Array(13), 2, 2), 'take 12 numbers, got 13'],
    ['no pixels', () => new GeneratedImage(0, 2, new Uint8Array(0)), 'must be positive integers, got 0 x 2'],
  ])('refuses %s', (_, act, message) => {
    expect(act).toThrow(InvalidArgumentError);
    expect(act).toThrow(message);
  });

  test('refuses formats, qualities and metadata that it cannot write', async () => {
    const image = gradient(4, 4);
    await expect(image.toBuffer('gif' as 'png')).rejects.toThrow("format must be 'png', 'jpeg' or 'webp', got 'gif'");
    await expect(image.toBuffer('jpeg', { quality: 0 })).rejects.toThrow(
      'quality must be an integer from 1 to 100, got 0',
    );
    await expect(gradient(4, 4, { '': 'x' }).toBuffer()).rejects.toThrow('1 to 79 Latin-1 characters, got ""');
    await expect(gradient(4, 4, { 星: 'x' }).toBuffer()).rejects.toThrow(InvalidArgumentError);
    await expect(gradient(4, 4, { parameters: 'x'.repeat(40000) }).toBuffer('jpeg')).rejects.toThrow(
      'a JPEG holds 65533; save as PNG or WebP instead',
    );
  });
});

describe('save', () => {
  test.each([
    ['star.png', 'png'],
    ['star.JPG', 'jpeg'],
    ['star.jpeg', 'jpeg'],
    ['star.webp', 'webp'],
  ])('%s is a %s', async (name, format) => {
    const image = gradient(10, 6, { parameters: PROMPT });
    const path = join(dir, name);
    await checkImagePath(path);
    await image.save(path);
    expect((await sharp(path).metadata()).format).toBe(format);
    expect(await readParameters(path)).toBe(PROMPT);
    await image.save(path);
    expect(await readdir(dir)).toEqual([name]);
  });

  test.each(['star.gif', 'star', 'star.png.bak', '.png', 'star.constructor'])('refuses %s', async (name) => {
    const path = join(dir, name);
    await expect(gradient(2, 2).save(path)).rejects.toThrow(InvalidArgumentError);
    await expect(gradient(2, 2).save(path)).rejects.toThrow('expected the extension .png, .jpg, .jpeg, .webp, got');
    await expect(checkImagePath(path)).rejects.toThrow(InvalidArgumentError);
    expect(await readdir(dir)).toEqual([]);
  });

  test('paths that cannot be written are told before and after drawing', async () => {
    await mkdir(join(dir, 'folder.png'));
    await writeFile(join(dir, 'plain'), '');
    const cases = [
      [join(dir, 'none', 'star.png'), 'does not exist; create it or choose another path'],
      [join(dir, 'folder.png'), 'it is a directory'],
      [join(dir, 'plain', 'star.png'), 'is not a directory'],
    ];
    for (const [path, message] of cases) {
      for (const attempt of [() => gradient(2, 2).save(path!), () => checkImagePath(path!)]) {
        await expect(attempt()).rejects.toThrow(FileWriteError);
        await expect(attempt()).rejects.toThrow(message);
      }
    }
    expect((await readdir(dir)).sort()).toEqual(['folder.png', 'plain']);
  });

  const asRoot = process.getuid?.() === 0;
  (asRoot ? test.skip : test)('a directory without permission', async () => {
    await chmod(dir, 0o555);
    await expect(gradient(2, 2).save(join(dir, 'star.png'))).rejects.toThrow('no permission to write');
    await expect(checkImagePath(join(dir, 'star.png'))).rejects.toThrow('no permission to write');
    await chmod(dir, 0o755);
  });

  test('a picture that cannot be encoded leaves the file that was there', async () => {
    const path = join(dir, 'star.jpg');
    await writeFile(path, 'before');
    await expect(gradient(2, 2, { parameters: 'x'.repeat(40000) }).save(path)).rejects.toThrow(InvalidArgumentError);
    expect(await readFile(path, 'utf8')).toBe('before');
    expect(await readdir(dir)).toEqual(['star.jpg']);
  });
});

describe('in tslab', () => {
  const shown: Uint8Array[] = [];
  const scope = globalThis as { __tslab__?: unknown };
  beforeEach(() => {
    shown.length = 0;
    const modules: Record<string, unknown> = { tslab: { display: { png: (bytes: Uint8Array) => shown.push(bytes) } } };
    scope.__tslab__ = { exports: {}, require: (id: string) => modules[id] };
  });
  afterEach(() => {
    delete scope.__tslab__;
  });

  test('the last value of a cell, alone or in a result, shows its pictures', async () => {
    const images = [gradient(5, 4), gradient(3, 2)];
    expect(inspect({ images })).toContain('GeneratedImage { 5 x 4 }');
    expect(shown).toHaveLength(2);
    for (const [i, { width, height, data }] of images.entries()) {
      expect(await decode(shown[i]!)).toEqual({ width, height, data });
    }
  });

  test('display() shows the picture with its metadata', async () => {
    const image = gradient(5, 4, { parameters: PROMPT });
    await image.display();
    expect(shown).toHaveLength(1);
    expect(await readParameters(shown[0]!)).toBe(PROMPT);
  });

  test('a live display shows each picture in place of the one before', async () => {
    const places: Uint8Array[][] = [];
    const newDisplay = () => {
      const place: Uint8Array[] = [];
      places.push(place);
      return { png: (bytes: Uint8Array) => place.push(bytes) };
    };
    scope.__tslab__ = { exports: {}, require: () => ({ newDisplay }) };
    const live = new LiveDisplay();
    const image = gradient(5, 4);
    live.show(gradient(3, 2));
    live.show(undefined);
    live.show(image);
    expect(places).toHaveLength(1);
    expect(places[0]).toHaveLength(2);
    expect(await decode(places[0]![1]!)).toEqual({ width: 5, height: 4, data: image.data });
    delete scope.__tslab__;
    expect(() => new LiveDisplay()).toThrow('elsewhere use save(path)');
  });

  test('elsewhere a picture prints as a line and display() says what to do', async () => {
    delete scope.__tslab__;
    expect(inspect(gradient(5, 4))).toBe('GeneratedImage { 5 x 4 }');
    await expect(gradient(5, 4).display()).rejects.toThrow('elsewhere use save(path)');
    expect(shown).toHaveLength(0);
  });
});
