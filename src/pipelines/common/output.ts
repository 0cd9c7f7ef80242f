import type { Tensor4D } from '@tensorflow/tfjs-core';
import { GeneratedImage } from '../../images/index.js';
import type { Autoencoder } from '../../models/index.js';
import { checkAborted } from '../../utils/check.js';
import { decodeLatents } from './latents.js';
import type { OutputType } from './options.js';

/** Text metadata of picture number `index`. */
export type DescribeImage = (index: number, size: { width: number; height: number }) => Record<string, string>;

/**
 * What a call gives for its final latents.
 *
 * @param latents [B,h,w,C], taken over
 * @returns pictures; [B,H,W,3] in 0..1 for 'tensor'; the latents for 'latent'
 * @throws AbortedError before the decoder begins
 */
export async function toImages(
  vae: Autoencoder,
  latents: Tensor4D,
  { outputType = 'image', signal }: { outputType?: OutputType; signal?: AbortSignal },
  describe: DescribeImage,
): Promise<GeneratedImage[] | Tensor4D> {
  if (outputType === 'latent') {
    return latents;
  }
  try {
    checkAborted(signal, 'drawing');
    const pixels = await vae.withWeights(() => decodeLatents(vae, latents));
    return outputType === 'tensor' ? pixels : await readImages(pixels, describe);
  } finally {
    latents.dispose();
  }
}

/** Takes pixels [B,H,W,3] in 0..1 over. */
export async function readImages(pixels: Tensor4D, describe: DescribeImage = () => ({})): Promise<GeneratedImage[]> {
  const [batch, height, width, channels] = pixels.shape;
  const data = await pixels.data().finally(() => pixels.dispose());
  const size = height * width * channels;
  return Array.from({ length: batch }, (_, i) =>
    GeneratedImage.fromFloats(data.subarray(i * size, (i + 1) * size), width, height, describe(i, { width, height })),
  );
}
