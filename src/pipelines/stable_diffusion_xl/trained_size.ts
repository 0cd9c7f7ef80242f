import type { Autoencoder, UNet2DConditionModel } from '../../models/index.js';
import type { SizeOptions } from '../common/options.js';

/** Pixels of the pictures that a call draws: those of its options, else what the model was trained on, else 1024. */
export function trainedPictureSize(
  { unet, vae }: { unet: UNet2DConditionModel; vae: Autoencoder },
  options: SizeOptions,
): { height: number; width: number } {
  const [rows, columns] = unet.parsed.sampleSize ?? [128, 128];
  const { height = rows * vae.scaleFactor, width = columns * vae.scaleFactor } = options;
  return { height, width };
}
