import type { Autoencoder, UNet2DConditionModel } from '../../models/index.js';
import type { SchedulerMixin } from '../../schedulers/index.js';
import type { SizeOptions } from '../common/options.js';

/**
 * Changes the settings of schedulers that came before Stable Diffusion's own were known, as diffusers does whenever it
 * makes a StableDiffusionPipeline: the first timestep is 1, and clean samples are not clipped.
 */
export function fixOutdatedConfig(scheduler: SchedulerMixin): void {
  const { steps_offset: offset = 1, clip_sample: clip } = scheduler.config;
  if (offset !== 1) {
    scheduler.updateConfig({ steps_offset: 1 });
  }
  if (clip === true) {
    scheduler.updateConfig({ clip_sample: false });
  }
}

/**
 * Height and width of the latents that pictures have when nothing else is asked for. Configurations of diffusers before
 * 0.9 say too little (32) and mean 64.
 */
function trainedSize(unet: UNet2DConditionModel): [number, number] {
  const { sampleSize } = unet.parsed;
  const { sample_size: size, _diffusers_version: version } = unet.config;
  const [major, minor] = typeof version === 'string' ? version.split('.').map(Number) : [];
  const outdated = major === 0 && minor! < 9 && typeof size === 'number' && size < 64;
  return outdated || !sampleSize ? [64, 64] : sampleSize;
}

/** Pixels of the pictures that a call draws: those of its options, else what the model was trained on. */
export function pictureSize(
  { unet, vae }: { unet: UNet2DConditionModel; vae: Autoencoder },
  options: SizeOptions,
): { height: number; width: number } {
  const [rows, columns] = trainedSize(unet);
  const { height = rows * vae.scaleFactor, width = columns * vae.scaleFactor } = options;
  return { height, width };
}
