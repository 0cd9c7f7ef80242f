import type { Buffer } from 'node:buffer';
import { asBuffer, files, type ImageFormat, images } from '#platform';
import { InvalidArgumentError } from '../errors.js';
import { extensionOf } from '../utils/paths.js';
import { exifWithUserComment, insertJpegExif, insertWebpExif } from './exif.js';
import { PARAMETERS_KEY } from './parameters.js';
import { encodePngSync, insertPngText } from './png.js';
import { newTslabDisplay, type TslabDisplay, tslabDisplay } from './tslab.js';

export type { ImageFormat };

export interface ImageEncodeOptions {
  /** Quality of JPEG and WebP, 1 to 100; 95 unless told. PNG is always exact. */
  quality?: number;
}

const FORMATS: readonly ImageFormat[] = ['png', 'jpeg', 'webp'];
const FORMAT_BY_EXTENSION: Readonly<Record<string, ImageFormat>> = {
  '.png': 'png',
  '.jpg': 'jpeg',
  '.jpeg': 'jpeg',
  '.webp': 'webp',
};

/**
 * The format that a path's extension names.
 * @throws {InvalidArgumentError} when it names none that can be written
 */
export function imageFormatOf(path: string): ImageFormat {
  const extension = extensionOf(path);
  const format = Object.hasOwn(FORMAT_BY_EXTENSION, extension) ? FORMAT_BY_EXTENSION[extension] : undefined;
  if (!format) {
    const known = Object.keys(FORMAT_BY_EXTENSION).join(', ');
    throw new InvalidArgumentError(
      `[save] cannot tell a picture format from '${path}': expected the extension ${known}, got '${extension}'`,
    );
  }
  return format;
}

/**
 * Checks, before a picture is drawn, that it can be saved at `path`.
 * @throws {InvalidArgumentError} when the extension names no picture format
 * @throws {FileWriteError} when nothing can be written there
 */
export async function checkImagePath(path: string): Promise<void> {
  imageFormatOf(path);
  await files.checkWritable(path);
}

/** A drawn picture: 8-bit RGB pixels, row after row from the top, and the text metadata that its files carry. */
export class GeneratedImage {
  /**
   * @param data [height, width, 3], 0 to 255
   * @param metadata text by key; `parameters` holds prompt and settings
   */
  constructor(
    readonly width: number,
    readonly height: number,
    readonly data: Uint8Array,
    readonly metadata: Record<string, string> = {},
  ) {
    checkSize(width, height, data.length);
  }

  /**
   * A picture from numbers between 0 and 1, scaled, rounded (half to even) and clipped as diffusers' `numpy_to_pil`
   * (diffusers/image_processor.py); NaN becomes 0.
   * @param data [height, width, 3]
   */
  static fromFloats(
    data: ArrayLike<number>,
    width: number,
    height: number,
    metadata: Record<string, string> = {},
  ): GeneratedImage {
    checkSize(width, height, data.length);
    const clamped = new Uint8ClampedArray(data.length);
    for (let i = 0; i < data.length; i++) {
      // The float32 product decides a tie, as in numpy; the clamped array rounds half to even.
      clamped[i] = Math.fround(data[i]! * 255);
    }
    return new GeneratedImage(width, height, new Uint8Array(clamped.buffer), metadata);
  }

  /**
   * The picture as a file's bytes. A PNG carries all metadata as text; a JPEG and a WebP carry `parameters` in EXIF.
   * @throws {InvalidArgumentError} on an unknown format or quality
   */
  async toBuffer(format: ImageFormat = 'png', { quality = 95 }: ImageEncodeOptions = {}): Promise<Buffer> {
    const { width, height, data } = this;
    if (!(Number.isInteger(quality) && quality >= 1 && quality <= 100)) {
      throw new InvalidArgumentError(`[toBuffer] quality must be an integer from 1 to 100, got ${quality}`);
    }
    if (!FORMATS.includes(format)) {
      throw new InvalidArgumentError(`[toBuffer] format must be 'png', 'jpeg' or 'webp', got '${format}'`);
    }
    const encoded = await images.encode({ width, height, data }, format, quality);
    const parameters = this.metadata[PARAMETERS_KEY];
    const exif = parameters === undefined ? undefined : exifWithUserComment(parameters);
    if (format === 'png') {
      return asBuffer(insertPngText(encoded, this.metadata));
    }
    if (!exif) {
      return asBuffer(encoded);
    }
    return asBuffer(format === 'jpeg' ? insertJpegExif(encoded, exif) : insertWebpExif(encoded, width, height, exif));
  }

  /**
   * Writes the picture in the format that the path's extension names (.png, .jpg, .jpeg, .webp), whole or not at all.
   * @throws {InvalidArgumentError} on another extension
   * @throws {FileWriteError} when the path cannot be written
   */
  async save(path: string, options: ImageEncodeOptions = {}): Promise<void> {
    await files.write(path, await this.toBuffer(imageFormatOf(path), options));
  }

  /**
   * Shows the picture under the running cell of a tslab notebook.
   * @throws {InvalidArgumentError} outside tslab
   */
  async display(): Promise<void> {
    const display = tslabDisplay();
    if (!display) {
      throw new InvalidArgumentError('[display] pictures show in tslab notebooks only; elsewhere use save(path)');
    }
    display.png(await this.toBuffer('png'));
  }

  /** One line about the picture; in tslab, which prints a cell's last value, the picture itself comes with it. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    // Printing cannot wait, so this takes the encoder that does not need to.
    tslabDisplay()?.png(encodePngSync(this.data, this.width, this.height));
    return `GeneratedImage { ${this.width} x ${this.height} }`;
  }
}

/**
 * A place under the running cell of a tslab notebook, where each picture takes the place of the one before:
 * `const live = new LiveDisplay(); await pipe(prompt, { preview: 'linear', onProgress: (p) => live.show(p.preview?.[0]) })`.
 */
export class LiveDisplay {
  private readonly place: TslabDisplay;

  /** @throws {InvalidArgumentError} outside tslab */
  constructor() {
    const place = newTslabDisplay();
    if (!place) {
      throw new InvalidArgumentError('[LiveDisplay] pictures show in tslab notebooks only; elsewhere use save(path)');
    }
    this.place = place;
  }

  /** Shows the picture in place of the one before; undefined leaves that one. */
  show(image: GeneratedImage | undefined): void {
    if (image) {
      this.place.png(encodePngSync(image.data, image.width, image.height));
    }
  }
}

function checkSize(width: number, height: number, length: number): void {
  if (!(Number.isInteger(width) && width > 0 && Number.isInteger(height) && height > 0)) {
    throw new InvalidArgumentError(
      `[GeneratedImage] width and height must be positive integers, got ${width} x ${height}`,
    );
  }
  if (length !== width * height * 3) {
    throw new InvalidArgumentError(
      `[GeneratedImage] ${width} x ${height} RGB pixels take ${width * height * 3} numbers, got ${length}`,
    );
  }
}
