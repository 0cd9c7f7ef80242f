import { AttentionMemoryError } from '../../attention/index.js';

/** Sides of pictures go in such steps. */
const STEP = 64;

/**
 * What an attention layer's shortage means for a picture: the error of a denoiser whose first level has one token per
 * latent, with the side of the largest square picture that would fit. Every other error stays what it is.
 *
 * @param pixelsPerLatent along an edge
 */
export function withPictureAdvice(error: unknown, pixelsPerLatent: number): unknown {
  if (!(error instanceof AttentionMemoryError)) {
    return error;
  }
  const side = Math.floor((Math.sqrt(error.shortage.tokens) * pixelsPerLatent) / STEP) * STEP;
  const advice = `(in the UNet's first level a picture of ${side} x ${side} pixels), so lower the resolution`;
  return new AttentionMemoryError(error.shortage, side > 0 ? advice : '');
}
