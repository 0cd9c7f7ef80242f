import { deflateSync } from 'node:zlib';
import { describe, expect, jest, test } from '@jest/globals';
import sharp from 'sharp';
import { InvalidArgumentError } from '../../src/errors.js';
import { a1111Parameters, GeneratedImage, parseParameters, readParameters } from '../../src/images/index.js';
import { images } from '../../src/platform/node/index.js';

const settings = { steps: 20, sampler: 'Euler', guidanceScale: 7.5, seed: 0, width: 64, height: 48 };

describe('a1111Parameters', () => {
  test('writes the text as A1111 does', () => {
    expect(a1111Parameters({ prompt: 'a star', negativePrompt: 'blurry', model: 'tiny-shapes', ...settings })).toBe(
      'a star\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, CFG scale: 7.5, Seed: 0, Size: 64x48, Model: tiny-shapes',
    );
  });

  test('leaves out what there is not and quotes what would be misread', () => {
    const text = a1111Parameters({
      prompt: 'two\nlines',
      ...settings,
      seed: 2n ** 63n,
      model: 'a, "b": c',
      extra: { Eta: 0.5, Tiling: undefined },
    });
    expect(text).toBe(
      'two\nlines\nSteps: 20, Sampler: Euler, CFG scale: 7.5, Seed: 9223372036854775808, Size: 64x48, Model: "a, \\"b\\": c", Eta: 0.5',
    );
  });

  test('an empty prompt leaves the settings alone', () => {
    expect(a1111Parameters({ prompt: '', ...settings })).toBe(
      'Steps: 20, Sampler: Euler, CFG scale: 7.5, Seed: 0, Size: 64x48',
    );
  });
});

describe('parseParameters', () => {
  test.each([
    { prompt: 'a star', negativePrompt: '' },
    { prompt: 'a: b, c\nsecond line', negativePrompt: 'dark,\nblurry: very' },
    { prompt: '', negativePrompt: 'blurry' },
    { prompt: '', negativePrompt: '' },
  ])('takes $prompt / $negativePrompt apart again', ({ prompt, negativePrompt }) => {
    const text = a1111Parameters({ prompt, negativePrompt, ...settings, model: 'a, "b": c', clipSkip: 1 });
    expect(parseParameters(text)).toEqual({
      prompt,
      negativePrompt,
      settings: {
        Steps: '20',
        Sampler: 'Euler',
        'CFG scale': '7.5',
        Seed: '0',
        Size: '64x48',
        Model: 'a, "b": c',
        'Clip skip': '1',
      },
    });
  });

  test('a text without settings is all prompt', () => {
    expect(parseParameters('a star: big, yellow')).toEqual({
      prompt: 'a star: big, yellow',
      negativePrompt: '',
      settings: {},
    });
  });
});

describe('texts of a million characters', () => {
  test.each([
    'a'.repeat(1_000_000),
    'a '.repeat(500_000),
    'aa:"'.repeat(25_000),
    'aa:"\\"'.repeat(15_000),
    `Steps: 20, Sampler: Euler, ${'"\\'.repeat(30_000)}`,
    'a\n'.repeat(300_000),
  ])('%.20s... is read', (text) => {
    expect(parseParameters(text).prompt.length + Object.keys(parseParameters(text).settings).length).toBeGreaterThan(0);
  });

  test('settings are found wherever they stand in the last line, as the web UI finds them', () => {
    const { settings } = parseParameters(
      'a\n(so) - Steps: 20, Lora hashes: "a: b, c: \\"d\\"", Size-1: 64,x:1,Eta:0.5, : no',
    );
    expect(settings).toEqual({ Steps: '20', 'Lora hashes': 'a: b, c: "d"', 'Size-1': '64', Eta: '0.5' });
  });
});

/** A PNG chunk; readers of text do not look at its checksum. */
const pngChunk = (type: string, data: Uint8Array): Buffer => {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  return Buffer.concat([length, Buffer.from(type, 'latin1'), data, Buffer.alloc(4)]);
};

describe('PNG text of strangers', () => {
  const bomb = (key: string) =>
    pngChunk('zTXt', Buffer.concat([Buffer.from(`${key}\0\0`), deflateSync(Buffer.alloc(64e6))]));
  const withChunks = async (...chunks: Buffer[]): Promise<Buffer> => {
    const png = await new GeneratedImage(1, 1, new Uint8Array(3), { parameters: 'x' }).toBuffer();
    return Buffer.concat([png.subarray(0, 33), ...chunks, png.subarray(33)]);
  };

  test('of other keys is not unfolded', async () => {
    const inflate = jest.spyOn(globalThis, 'DecompressionStream');
    expect(await readParameters(await withChunks(...Array(20).fill(bomb('other'))))).toBe('x');
    expect(inflate).not.toHaveBeenCalled();
    inflate.mockRestore();
  });

  test('of parameters is unfolded up to a bound', async () => {
    await expect(readParameters(await withChunks(bomb('parameters')))).rejects.toThrow(InvalidArgumentError);
    await expect(readParameters(await withChunks(bomb('parameters')))).rejects.toThrow('unfolds to more than 16777216');
    const plain = pngChunk('tEXt', Buffer.concat([Buffer.from('parameters\0'), Buffer.alloc(17 * 2 ** 20, 97)]));
    await expect(readParameters(await withChunks(plain))).rejects.toThrow('more than 16777216');
    const garbage = pngChunk('zTXt', Buffer.from('parameters\0\0garbage'));
    await expect(readParameters(await withChunks(garbage))).rejects.toThrow('the file is damaged');
    const unfinished = pngChunk('iTXt', Buffer.from('parameters\0\0\0en'));
    await expect(readParameters(await withChunks(unfinished))).rejects.toThrow('does not end its fields');
  });

  test('of any byte is Latin-1 as PIL reads it', async () => {
    const bytes = Uint8Array.from({ length: 254 }, (_, i) => i + 2);
    const text = pngChunk('tEXt', Buffer.concat([Buffer.from('parameters\0'), bytes]));
    expect(await readParameters(await withChunks(text))).toBe(Buffer.from(bytes).toString('latin1'));
  });
});

test('a picture of more pixels than allowed is not decoded', async () => {
  const png = await new GeneratedImage(64, 64, new Uint8Array(64 * 64 * 3).fill(7)).toBuffer();
  expect(await images.decode(png, 4096)).toEqual({ width: 64, height: 64, data: new Uint8Array(12288).fill(7) });
  await expect(images.decode(png, 4095)).rejects.toThrow('exceeds pixel limit');
});

describe('readParameters', () => {
  test('reads EXIF of the other byte order and in ASCII, as libvips writes it', async () => {
    const jpeg = await sharp(new Uint8Array(12), { raw: { width: 2, height: 2, channels: 3 } })
      .withExif({ IFD2: { UserComment: 'a star' } })
      .jpeg()
      .toBuffer();
    expect(await readParameters(jpeg)).toBe('a star');
  });

  test('reads compressed PNG text and Latin-1', async () => {
    // PIL: PngInfo().add_text('parameters', 'a star ' * 20, zip=True)
    const zipped =
      'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAAHnpUWHRwYXJhbWV0ZXJzAAB4nEtUKC5JLFJIHAwUAP5KLx137FmcAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC';
    expect(await readParameters(Buffer.from(zipped, 'base64'))).toBe('a star '.repeat(20));
    const latin = await new GeneratedImage(1, 1, new Uint8Array(3), { parameters: 'café' }).toBuffer();
    expect(latin.includes(Buffer.from('parameters\0café', 'latin1'))).toBe(true);
    expect(await readParameters(latin)).toBe('café');
  });

  test('says what it cannot read', async () => {
    await expect(readParameters('/nonexistent/star.png')).rejects.toThrow(InvalidArgumentError);
    await expect(readParameters('/nonexistent/star.png')).rejects.toThrow("cannot read '/nonexistent/star.png'");
    await expect(readParameters(Buffer.from('no picture'))).rejects.toThrow('cannot read the picture');
    const png = await new GeneratedImage(1, 1, new Uint8Array(3), { parameters: 'x' }).toBuffer();
    await expect(readParameters(png.subarray(0, 40))).rejects.toThrow('the file is damaged');
  });
});
