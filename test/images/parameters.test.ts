import { describe, expect, test } from '@jest/globals';
import sharp from 'sharp';
import { InvalidArgumentError } from '../../src/errors.js';
import { a1111Parameters, GeneratedImage, parseParameters, readParameters } from '../../src/images/index.js';

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
