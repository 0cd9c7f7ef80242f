import { files, images } from '#platform';
import { InvalidArgumentError } from '../errors.js';
import type { PixelArray } from './resample.js';

/** Larger files and pictures are refused before they are read. */
const MAX_BYTES = 256e6;
const MAX_PIXELS = 2 ** 28;

/**
 * The pixels of a picture file (PNG, JPEG, WebP, GIF, AVIF, TIFF): RGB, turned upright as its EXIF orientation says,
 * without transparency.
 *
 * @param source a path, or the file's bytes
 * @throws InvalidArgumentError when there is no such file, or no picture in it
 */
export async function readImage(source: string | Uint8Array): Promise<PixelArray> {
  try {
    const bytes = typeof source === 'string' ? await files.readBytes(source, MAX_BYTES) : source;
    return { ...(await images.decode(bytes, MAX_PIXELS)), channels: 3 };
  } catch (error) {
    const name = typeof source === 'string' ? `'${source}'` : `${source.length} bytes`;
    throw new InvalidArgumentError(
      `[readImage] expects a picture file (PNG, JPEG, WebP, ...), got ${name}: ${(error as Error).message}`,
      { cause: error },
    );
  }
}
