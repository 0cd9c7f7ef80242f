import { checkImagePath, GeneratedImage } from '../images/index.js';
import { asUsage } from './exit.js';

/** Pictures of one size side by side. */
function sideBySide(images: readonly GeneratedImage[]): GeneratedImage {
  const [{ width, height }] = images as [GeneratedImage, ...GeneratedImage[]];
  const row = 3 * width;
  const data = new Uint8Array(images.length * row * height);
  for (const [i, image] of images.entries()) {
    for (let y = 0; y < height; y++) {
      data.set(image.data.subarray(y * row, (y + 1) * row), (y * images.length + i) * row);
    }
  }
  return new GeneratedImage(images.length * width, height, data);
}

/**
 * A file that shows pictures in the making. Each version replaces the one before as a whole, so that whoever reads it
 * never finds half a picture; while one is written only the newest of those that come waits.
 */
export class PreviewFile {
  private waiting: readonly GeneratedImage[] | undefined;
  private work: Promise<void> | undefined;
  private failure: unknown;

  private constructor(private readonly path: string) {}

  /** @throws UsageError when the extension names no picture format, FileWriteError when nothing can be written there */
  static async open(path: string): Promise<PreviewFile> {
    await asUsage(() => checkImagePath(path));
    return new PreviewFile(path);
  }

  show(images: readonly GeneratedImage[]): void {
    this.waiting = images;
    this.work ??= this.writeAll().catch((error) => {
      this.failure = error;
    });
  }

  private async writeAll(): Promise<void> {
    while (this.waiting) {
      const images = this.waiting;
      this.waiting = undefined;
      await sideBySide(images).save(this.path);
    }
    this.work = undefined;
  }

  /**
   * Waits for the last picture.
   *
   * @throws FileWriteError when one could not be written
   */
  async close(): Promise<void> {
    await this.work;
    if (this.failure !== undefined) {
      throw this.failure;
    }
  }
}
