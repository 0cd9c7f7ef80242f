import { deflateSync } from 'node:zlib';
import sharp from 'sharp';
import type { ImageCodecs, ImageFormat, Pixels } from '../types.js';

function encode({ width, height, data }: Pixels, format: ImageFormat, quality: number): Promise<Uint8Array> {
  const pixels = sharp(data, { raw: { width, height, channels: 3 }, limitInputPixels: false });
  switch (format) {
    case 'png':
      return pixels.png().toBuffer();
    case 'jpeg':
      return pixels.jpeg({ quality, chromaSubsampling: '4:4:4' }).toBuffer();
    case 'webp':
      return pixels.webp({ quality }).toBuffer();
  }
}

/** As PIL reads a picture: colour profiles are not applied. */
async function decode(bytes: Uint8Array, maxPixels: number): Promise<Pixels> {
  const { data, info } = await sharp(bytes, { limitInputPixels: maxPixels, failOn: 'error', ignoreIcc: true })
    .autoOrient()
    .toColourspace('srgb')
    .removeAlpha()
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, data: new Uint8Array(data) };
}

/** libvips. */
export const images: ImageCodecs = {
  encode,
  decode,
  exif: async (bytes) => (await sharp(bytes).metadata()).exif,
  deflateSync: (bytes) => deflateSync(bytes, { level: 6 }),
};
