// Parameters texts, and pictures whose metadata is damaged.
import sharp from 'sharp';
import { GeneratedImage, parseParameters, readParameters } from '../../../dist/index.js';

export async function setUp() {
  const parameters =
    'a star\nNegative prompt: a heart\nSteps: 20, Sampler: Euler, CFG scale: 7.5, Seed: 0, Size: 8x8, Version: "a, b"';
  const image = new GeneratedImage(8, 8, new Uint8Array(8 * 8 * 3), { parameters });
  const pictures = await Promise.all(['png', 'jpeg', 'webp'].map((format) => image.toBuffer(format)));
  return { pictures: [...pictures, await sharp(pictures[0]).gif().toBuffer()], parameters };
}

export async function trial(random, { pictures, parameters }) {
  if (random.chance(0.5)) {
    const text = random.chance(0.5)
      ? random.text(random.integer(0, 300))
      : new TextDecoder().decode(random.damage(new TextEncoder().encode(parameters)));
    const { prompt, negativePrompt, settings } = parseParameters(text.repeat(random.of([1, 1, 1, 500])));
    if (typeof prompt !== 'string' || typeof negativePrompt !== 'string' || typeof settings !== 'object') {
      throw new Error('parseParameters gave something else than texts');
    }
  } else {
    await readParameters(random.damage(random.of(pictures)));
  }
}
