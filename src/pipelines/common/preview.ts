import type { Tensor4D } from '@tensorflow/tfjs-core';
import { GeneratedImage } from '../../images/index.js';
import type { Autoencoder, UNet2DConditionModel } from '../../models/index.js';
import { invalid } from '../../utils/check.js';
import type { Previewer } from './denoising_loop.js';
import { decodeLatents } from './latents.js';
import type { DenoisingStep, PreviewSetting } from './options.js';
import { readImages } from './output.js';

/** Shares of red, green and blue of each latent channel, and what is added; 0 to 255. */
interface LatentColours {
  factors: readonly (readonly [number, number, number])[];
  bias: readonly [number, number, number];
}

/** Stable Diffusion 1 and 2 (https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204). */
const SD: LatentColours = {
  factors: [
    [38, 26.4, 26.5],
    [23.8, 36.5, 22.1],
    [-20.1, 24.1, 33.7],
    [-23.5, -34.6, -60.3],
  ],
  bias: [127.5, 127.5, 127.5],
};

/** SDXL (https://huggingface.co/blog/TimothyAlexisVass/explaining-the-sdxl-latent-space). */
const SDXL: LatentColours = {
  factors: [
    [60, 60, 60],
    [-60, -5, 10],
    [25, 15, -5],
    [-70, -50, -35],
  ],
  bias: [150, 140, 130],
};

/** A pipeline whose latents can be shown. */
export interface PreviewedPipeline {
  className: string;
  unet: UNet2DConditionModel;
  vae: Autoencoder;
}

/**
 * What draws the previews that an option asks for.
 *
 * @throws InvalidArgumentError for latents that have no known colours, or that the VAE does not decode
 */
export function previewer(
  pipe: PreviewedPipeline,
  setting: PreviewSetting | undefined,
): Previewer<Tensor4D> | undefined {
  if (setting === undefined) {
    return undefined;
  }
  const { latentChannels } = pipe.vae.parsed;
  if (setting === 'linear') {
    const colours = pipe.unet.parsed.additionEmbedType ? SDXL : SD;
    if (latentChannels !== colours.factors.length) {
      const expected = `{vae} for latents of ${latentChannels} channels, whose colours are not known`;
      throw invalid(pipe.className, 'preview', expected, setting);
    }
    const { scaleFactor } = pipe.vae;
    return (step) => linearPreviews(shown(step), colours, scaleFactor);
  }
  const { vae, every = 1 } = setting;
  if (vae.parsed.latentChannels !== latentChannels) {
    throw invalid(pipe.className, 'preview.vae', `one for latents of ${latentChannels} channels`, vae.config);
  }
  return async (step) => {
    const draws = (step.step + 1) % every === 0 || step.step + 1 === step.total;
    return draws ? readImages(await vae.withWeights(() => decodeLatents(vae, shown(step)))) : undefined;
  };
}

/** Clean latents where the scheduler tells them: those of early steps are mostly noise. */
const shown = ({ predOriginalSample, latents }: DenoisingStep): Tensor4D => predOriginalSample ?? latents;

/** Each latent as a square of the colour that it stands for. */
async function linearPreviews(latents: Tensor4D, colours: LatentColours, scale: number): Promise<GeneratedImage[]> {
  const [batch, height, width, channels] = latents.shape;
  const numbers = await latents.data();
  const size = height * width * channels;
  return Array.from({ length: batch }, (_, i) => {
    const pixels = colourPixels(numbers.subarray(i * size, (i + 1) * size) as Float32Array, colours);
    return new GeneratedImage(width * scale, height * scale, enlarge(pixels, width, height, scale));
  });
}

/** Latents, 4 numbers each, to 8-bit RGB. */
function colourPixels(latents: Float32Array, { factors, bias }: LatentColours): Uint8ClampedArray {
  const channels = factors.length;
  const pixels = new Uint8ClampedArray((latents.length / channels) * 3);
  for (let i = 0; i < pixels.length; i++) {
    const [pixel, colour] = [Math.floor(i / 3), i % 3];
    let sum = bias[colour]!;
    for (let c = 0; c < channels; c++) {
      sum += latents[pixel * channels + c]! * factors[c]![colour]!;
    }
    pixels[i] = sum;
  }
  return pixels;
}

/** Repeats every pixel `scale` times along both edges. */
function enlarge(pixels: Uint8ClampedArray, width: number, height: number, scale: number): Uint8Array {
  const row = width * scale * 3;
  const out = new Uint8Array(row * height * scale);
  for (let y = 0; y < height; y++) {
    const first = y * scale * row;
    for (let i = 0; i < row; i++) {
      out[first + i] = pixels[(y * width + Math.floor(i / (3 * scale))) * 3 + (i % 3)]!;
    }
    for (let copy = 1; copy < scale; copy++) {
      out.copyWithin(first + copy * row, first, first + row);
    }
  }
  return out;
}
