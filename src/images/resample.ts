/** 8-bit pixels, row after row from the top: [height, width, channels]. */
export interface PixelArray {
  width: number;
  height: number;
  channels: number;
  data: Uint8Array;
}

/** A region in pixels; edges may lie between pixels. */
export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

const sinc = (x: number) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

/** Half the width of each filter, and its value at x (Pillow's Resample.c). */
const FILTERS = {
  lanczos: { support: 3, at: (x: number) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
  bicubic: { support: 2, at: bicubic },
} as const;

export type ResampleFilter = keyof typeof FILTERS;

/** Keys' cubic convolution with a = -0.5. */
function bicubic(value: number): number {
  const x = Math.abs(value);
  if (x < 1) {
    return (1.5 * x - 2.5) * x * x + 1;
  }
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/** Bits after the point of Pillow's fixed-point weights: 32, less 8 of a pixel and 2 that sums of weights need. */
const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/** The input pixels that an output pixel is made of, and their weights in fixed point. */
interface Window {
  first: number;
  weights: Int32Array;
}

/** Windows of `size` output pixels over the stretch from `begin` to `end` of `inputSize` pixels. */
function windows(inputSize: number, begin: number, end: number, size: number, filter: ResampleFilter): Window[] {
  const { support, at } = FILTERS[filter];
  const scale = (end - begin) / size;
  const filterScale = Math.max(scale, 1);
  return Array.from({ length: size }, (_, i) => {
    const center = begin + (i + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support * filterScale + 0.5), 0);
    const last = Math.min(Math.trunc(center + support * filterScale + 0.5), inputSize);
    const values = Array.from({ length: last - first }, (_, k) => at((k + first - center + 0.5) * (1 / filterScale)));
    const sum = values.reduce((a, b) => a + b, 0);
    return { first, weights: Int32Array.from(values, (value) => fixedPoint(sum === 0 ? value : value / sum)) };
  });
}

function fixedPoint(weight: number): number {
  return Math.trunc((weight < 0 ? -0.5 : 0.5) + weight * (1 << PRECISION_BITS));
}

const clip8 = (sum: number) => Math.min(Math.max(sum >> PRECISION_BITS, 0), 255);

function resampleRows(image: PixelArray, columns: readonly Window[]): PixelArray {
  const { width, height, channels, data } = image;
  const out = new Uint8Array(height * columns.length * channels);
  let o = 0;
  for (let y = 0; y < height; y++) {
    for (const { first, weights } of columns) {
      for (let c = 0; c < channels; c++) {
        let sum = HALF;
        for (let k = 0, i = (y * width + first) * channels + c; k < weights.length; k++, i += channels) {
          sum += data[i]! * weights[k]!;
        }
        out[o++] = clip8(sum);
      }
    }
  }
  return { width: columns.length, height, channels, data: out };
}

function resampleColumns(image: PixelArray, rows: readonly Window[]): PixelArray {
  const { width, channels, data } = image;
  const stride = width * channels;
  const out = new Uint8Array(rows.length * stride);
  for (const [y, { first, weights }] of rows.entries()) {
    for (let x = 0; x < stride; x++) {
      let sum = HALF;
      for (let k = 0, i = first * stride + x; k < weights.length; k++, i += stride) {
        sum += data[i]! * weights[k]!;
      }
      out[y * stride + x] = clip8(sum);
    }
  }
  return { width, height: rows.length, channels, data: out };
}

/**
 * Resizes a picture as Pillow's Image.resize does, to the same 8-bit numbers: two passes with rounding between them.
 *
 * @param box the region of the picture that is resized. Default: all of it.
 */
export function resample(
  image: PixelArray,
  width: number,
  height: number,
  filter: ResampleFilter = 'lanczos',
  box: Box = { left: 0, top: 0, right: image.width, bottom: image.height },
): PixelArray {
  const changesWidth = width !== image.width || box.left !== 0 || box.right !== width;
  const changesHeight = height !== image.height || box.top !== 0 || box.bottom !== height;
  const wide = changesWidth
    ? resampleRows(image, windows(image.width, box.left, box.right, width, filter))
    : { ...image, data: image.data.slice() };
  return changesHeight ? resampleColumns(wide, windows(image.height, box.top, box.bottom, height, filter)) : wide;
}

/**
 * A region of a picture; what lies outside of it is black (Pillow's Image.crop).
 *
 * @param box with edges on pixels
 */
export function crop(image: PixelArray, { left, top, right, bottom }: Box): PixelArray {
  const canvas = blank(right - left, bottom - top, image.channels);
  paste(canvas, image, -left, -top);
  return canvas;
}

/** A black picture. */
export function blank(width: number, height: number, channels: number): PixelArray {
  return { width, height, channels, data: new Uint8Array(width * height * channels) };
}

/** Copies a picture onto another one, with its corner at (left, top); what lies outside is left out. */
export function paste(onto: PixelArray, image: PixelArray, left: number, top: number): void {
  const { channels } = image;
  const [begin, end] = [Math.max(0, -left), Math.min(image.width, onto.width - left)];
  for (let y = Math.max(0, -top); begin < end && y < Math.min(image.height, onto.height - top); y++) {
    const row = image.data.subarray((y * image.width + begin) * channels, (y * image.width + end) * channels);
    onto.data.set(row, ((y + top) * onto.width + left + begin) * channels);
  }
}

/** Brightness of RGB pixels (ITU-R 601-2, Pillow's convert('L')); pictures of one channel stay as they are. */
export function toGrey({ width, height, channels, data }: PixelArray): PixelArray {
  if (channels === 1) {
    return { width, height, channels, data };
  }
  const grey = Uint8Array.from({ length: width * height }, (_, i) => {
    const [r, g, b] = data.subarray(i * channels);
    return (r! * 19595 + g! * 38470 + b! * 7471 + 0x8000) >> 16;
  });
  return { width, height, channels: 1, data: grey };
}

/** RGB pixels of a picture of one (grey), three or four channels (RGBA, whose transparency is left out). */
export function toRgb({ width, height, channels, data }: PixelArray): PixelArray {
  if (channels === 3) {
    return { width, height, channels, data };
  }
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      rgb[i * 3 + c] = data[i * channels + (channels === 1 ? 0 : c)]!;
    }
  }
  return { width, height, channels: 3, data: rgb };
}
