import sharp from 'sharp';
import { RequestError } from '../errors.js';
import type { Limits } from '../request/limits.js';

/** An uploaded picture whose header was read. */
export interface Upload {
  bytes: Uint8Array;
  width: number;
  height: number;
  hasAlpha: boolean;
}

/** No SVG among them: it can name other files. */
const FORMATS: ReadonlySet<string> = new Set(['png', 'jpeg', 'webp', 'gif', 'heif', 'tiff']);
const BASE64 = /^[A-Za-z0-9+/\s]*={0,2}\s*$/;

/** The bytes of base64 or of a data URL. @throws RequestError */
export function decodeBase64(name: string, text: string): Uint8Array {
  const body = text.replace(/^data:[\w/+.-]*;base64,/, '');
  if (body === '' || !BASE64.test(body)) {
    throw new RequestError(`${name} expects a picture in base64, with or without 'data:image/png;base64,' before it`);
  }
  return Buffer.from(body, 'base64');
}

/**
 * Reads the header of an uploaded picture, no pixel of it.
 *
 * @throws RequestError for what is no picture, is of another format, or has too many pixels
 */
export async function checkUpload(name: string, bytes: Uint8Array, limits: Limits): Promise<Upload> {
  const metadata = await sharp(bytes, { limitInputPixels: limits.uploadPixels })
    .metadata()
    .catch((error: Error) => {
      throw new RequestError(
        `${name} expects a picture (PNG, JPEG, WebP, ...), got ${bytes.length} bytes: ${error.message}`,
      );
    });
  const { format, width = 0, height = 0, hasAlpha = false, orientation = 1 } = metadata;
  if (!FORMATS.has(format ?? '')) {
    throw new RequestError(`${name} expects PNG, JPEG, WebP, GIF, AVIF or TIFF, got ${format}`);
  }
  if (width * height > limits.uploadPixels) {
    throw new RequestError(
      `${name} has ${width} x ${height} pixels, more than this server's limit of ${limits.uploadPixels}`,
    );
  }
  // from 5 on, a quarter turn
  return { bytes, hasAlpha, ...(orientation >= 5 ? { width: height, height: width } : { width, height }) };
}

/** As `checkUpload`, from base64. */
export function checkBase64(name: string, text: string, limits: Limits): Promise<Upload> {
  return checkUpload(name, decodeBase64(name, text), limits);
}

/** A mask in our sense, white where it is drawn anew, from one in OpenAI's, transparent there. */
export async function maskOfAlpha({ bytes }: Upload): Promise<Uint8Array> {
  return sharp(bytes).extractChannel('alpha').negate().toColourspace('b-w').png().toBuffer();
}

/** The opposite mask. */
export async function inverted(mask: Uint8Array): Promise<Uint8Array> {
  return sharp(mask).removeAlpha().negate().png().toBuffer();
}

/** A mask with soft edges, as the web UI's mask blur. */
export async function blurred(mask: Uint8Array, radius: number): Promise<Uint8Array> {
  return radius > 0 ? sharp(mask).removeAlpha().blur(radius).png().toBuffer() : mask;
}
