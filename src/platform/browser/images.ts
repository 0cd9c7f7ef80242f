import type { ImageCodecs, ImageFormat, Pixels } from '../types.js';
import { findExif } from './find_exif.js';

/** Most bytes of a block of a zlib stream that is stored as it is. */
const BLOCK_BYTES = 65535;

async function encode({ width, height, data }: Pixels, format: ImageFormat, quality: number): Promise<Uint8Array> {
  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let i = 0; i < width * height; i++) {
    rgba.set(data.subarray(3 * i, 3 * i + 3), 4 * i);
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext('2d')!.putImageData(new ImageData(rgba, width, height), 0, 0);
  const blob = await canvas.convertToBlob({ type: `image/${format}`, quality: quality / 100 });
  if (blob.type !== `image/${format}`) {
    throw new Error(`this browser does not write ${format}`);
  }
  return new Uint8Array(await blob.arrayBuffer());
}

async function decode(bytes: Uint8Array, maxPixels: number): Promise<Pixels> {
  const bitmap = await createImageBitmap(new Blob([bytes as Uint8Array<ArrayBuffer>]), {
    premultiplyAlpha: 'none',
  });
  try {
    const { width, height } = bitmap;
    if (width * height > maxPixels) {
      throw new Error(`it has ${width} x ${height} pixels, more than ${maxPixels}`);
    }
    const context = new OffscreenCanvas(width, height).getContext('2d')!;
    context.drawImage(bitmap, 0, 0);
    const rgba = context.getImageData(0, 0, width, height).data;
    const data = new Uint8Array(width * height * 3);
    for (let i = 0; i < width * height; i++) {
      data.set(rgba.subarray(4 * i, 4 * i + 3), 3 * i);
    }
    return { width, height, data };
  } finally {
    bitmap.close();
  }
}

/** Stored blocks (RFC 1951, 3.2.4): a browser compresses only while the program waits. */
function deflateSync(bytes: Uint8Array): Uint8Array {
  const blocks = Math.max(1, Math.ceil(bytes.length / BLOCK_BYTES));
  const out = new Uint8Array(2 + blocks * 5 + bytes.length + 4);
  const view = new DataView(out.buffer);
  out.set([0x78, 0x01]);
  let [at, a, b] = [2, 1, 0];
  for (let block = 0; block < blocks; block++) {
    const data = bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
    view.setUint8(at, block === blocks - 1 ? 1 : 0);
    view.setUint16(at + 1, data.length, true);
    view.setUint16(at + 3, ~data.length & 0xffff, true);
    out.set(data, at + 5);
    at += 5 + data.length;
  }
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  view.setUint32(at, b * 65536 + a);
  return out;
}

/** The browser's own codecs, by way of a canvas. */
export const images: ImageCodecs = {
  encode,
  decode,
  async exif(bytes) {
    (await createImageBitmap(new Blob([bytes as Uint8Array<ArrayBuffer>]))).close();
    return findExif(bytes);
  },
  deflateSync,
};
