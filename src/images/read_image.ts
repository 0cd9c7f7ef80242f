import { files, images } from '#platform';
import { InvalidArgumentError } from '../errors.js';
import { baseName } from '../utils/paths.js';
import type { PixelArray } from './resample.js';

/** Larger files and pictures are refused before they are read. */
const MAX_BYTES = 256e6;
const MAX_PIXELS = 2 ** 28;

/** What a file is known by: its base name, '' for bytes without one, and its content. */
export interface InputFile {
  name: string;
  /** SHA-256 of the bytes, hexadecimal. */
  sha256: string;
}

/**
 * What a file is known by.
 *
 * @returns undefined on pages that browsers take for insecure, where there is no SHA-256
 */
export async function identifyFile(name: string, bytes: Uint8Array): Promise<InputFile | undefined> {
  const { subtle } = globalThis.crypto as Partial<Crypto>;
  if (!subtle) {
    return undefined;
  }
  const digest = new Uint8Array(await subtle.digest('SHA-256', new Uint8Array(bytes)));
  return { name, sha256: Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('') };
}

/**
 * `readImage`, and what the file is known by; it is read once.
 *
 * @throws InvalidArgumentError as `readImage`
 */
export async function readImageFile(
  source: string | Uint8Array,
): Promise<{ pixels: PixelArray; file: InputFile | undefined }> {
  const { pixels, bytes } = await readWithBytes(source);
  return { pixels, file: await identifyFile(typeof source === 'string' ? baseName(source) : '', bytes) };
}

/**
 * The pixels of a picture file (PNG, JPEG, WebP, GIF, AVIF, TIFF): RGB, turned upright as its EXIF orientation says,
 * without transparency.
 *
 * @param source a path, or the file's bytes
 * @throws InvalidArgumentError when there is no such file, or no picture in it
 */
export async function readImage(source: string | Uint8Array): Promise<PixelArray> {
  return (await readWithBytes(source)).pixels;
}

async function readWithBytes(source: string | Uint8Array): Promise<{ pixels: PixelArray; bytes: Uint8Array }> {
  try {
    const bytes = typeof source === 'string' ? await files.readBytes(source, MAX_BYTES) : source;
    return { bytes, pixels: { ...(await images.decode(bytes, MAX_PIXELS)), channels: 3 } };
  } catch (error) {
    const name = typeof source === 'string' ? `'${source}'` : `${source.length} bytes`;
    throw new InvalidArgumentError(
      `[readImage] expects a picture file (PNG, JPEG, WebP, ...), got ${name}: ${(error as Error).message}`,
      { cause: error },
    );
  }
}
