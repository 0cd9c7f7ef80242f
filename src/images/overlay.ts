import { InvalidArgumentError } from '../errors.js';
import { type Box, blank, type PixelArray, paste } from './resample.js';

/**
 * The region around what is masked, of the proportions of the pictures that are drawn (diffusers' get_crop_region).
 *
 * @param mask one channel; what is not 0 is masked
 * @param width of the pictures that are drawn
 * @param pad pixels around what is masked
 * @throws InvalidArgumentError for a mask that masks nothing
 */
export function cropRegion(mask: PixelArray, width: number, height: number, pad: number): Box {
  const { left, top, right, bottom } = padded(maskedBox(mask), pad, mask);
  const ratio = width / height;
  if ((right - left) / (bottom - top) > ratio) {
    const [from, to] = grown(top, bottom, (right - left) / ratio, mask.height);
    return { left, top: from, right, bottom: to };
  }
  const [from, to] = grown(left, right, (bottom - top) * ratio, mask.width);
  return { left: from, top, right: to, bottom };
}

function maskedBox({ width, height, data }: PixelArray): Box {
  const box = { left: width, top: height, right: 0, bottom: 0 };
  for (let i = 0; i < data.length; i++) {
    if (data[i] !== 0) {
      const [x, y] = [i % width, Math.floor(i / width)];
      box.left = Math.min(box.left, x);
      box.right = Math.max(box.right, x + 1);
      box.top = Math.min(box.top, y);
      box.bottom = y + 1;
    }
  }
  if (box.right === 0) {
    throw new InvalidArgumentError(
      '[paddingMaskCrop] maskImage expects something to draw anew, pixels that are not black, got a black picture',
    );
  }
  return box;
}

function padded({ left, top, right, bottom }: Box, pad: number, { width, height }: PixelArray): Box {
  return {
    left: Math.max(left - pad, 0),
    top: Math.max(top - pad, 0),
    right: Math.min(right + pad, width),
    bottom: Math.min(bottom + pad, height),
  };
}

/** A stretch that is brought to a length on both sides, and stays within the picture. */
function grown(begin: number, end: number, length: number, size: number): [number, number] {
  const more = Math.trunc(length - (end - begin));
  let [from, to] = [begin - Math.floor(more / 2), end + more - Math.floor(more / 2)];
  if (to >= size) {
    [from, to] = [from - (to - size), size];
  }
  if (from < 0) {
    [from, to] = [0, to - from];
  }
  return [from, Math.min(to, size)];
}

/** x / 255, rounded, as Pillow computes it for 0 <= x <= 255 * 255. */
function div255(x: number): number {
  return ((x + 128) * 257) >> 16;
}

/**
 * Puts a picture over what was drawn, but for what is masked (diffusers' apply_overlay, to Pillow's 8-bit numbers).
 *
 * @param picture RGB, over all
 * @param mask one channel, of the picture's size: 255 shows what was drawn, 0 the picture
 * @param drawn RGB, of the region's size
 * @param region where it was drawn
 * @returns RGB of the picture's size
 */
export function overlay(picture: PixelArray, mask: PixelArray, drawn: PixelArray, region: Box): PixelArray {
  const result = blank(picture.width, picture.height, 3);
  paste(result, drawn, region.left, region.top);
  for (let i = 0; i < mask.data.length; i++) {
    const alpha = 255 - mask.data[i]!;
    for (let c = i * 3; alpha > 0 && c < i * 3 + 3; c++) {
      // the picture with its transparency, premultiplied and back, over what was drawn
      const shown = Math.min(Math.trunc((255 * div255(picture.data[c]! * alpha)) / alpha), 255);
      result.data[c] = blend(shown, result.data[c]!, alpha);
    }
  }
  return result;
}

/** Pillow's alpha_composite over something opaque, with 7 bits after the point. */
function blend(above: number, below: number, alpha: number): number {
  const share = alpha << 7;
  const sum = above * share + below * ((255 << 7) - share) + (0x80 << 7);
  return (((sum >> 8) + sum) >> 8) >> 7;
}
