import type { Tensor, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { OutOfMemoryError } from '../../errors.js';
import type { Autoencoder } from '../../models/index.js';
import type { SchedulerMixin } from '../../schedulers/index.js';
import { invalid } from '../../utils/check.js';
import { randnTensor } from '../../utils/randn_tensor.js';
import type { TorchGenerator } from '../../utils/torch_generator.js';

type Generators = TorchGenerator | readonly TorchGenerator[];

/** A gigabyte of latents stands for pictures of gigapixels, whose layers no tensor can hold. */
const MAX_LATENTS = 2 ** 28;

/**
 * Shape [B, height / 8, width / 8, C] of the latents of pictures.
 *
 * @throws OutOfMemoryError for pictures that could not be computed anywhere
 */
export function latentShape(
  where: string,
  vae: Autoencoder,
  { pictures, height, width }: { pictures: number; height: number; width: number },
): [number, number, number, number] {
  const { scaleFactor, parsed } = vae;
  const shape = [pictures, height / scaleFactor, width / scaleFactor, parsed.latentChannels] as const;
  if (shape.reduce((a, b) => a * b, 1) > MAX_LATENTS) {
    throw new OutOfMemoryError(
      `[${where}] latents [${shape}] are too many for any memory; ask for smaller or fewer pictures`,
    );
  }
  return [...shape];
}

/**
 * Starting latents at the noise level of the scheduler's first step: noise alone, or, with `original`, clean latents
 * with the noise of the step number `begin` added (image to image).
 *
 * @param shape [B, ...] of the latents
 * @param noise of variance 1 instead of what the generator draws; stays the caller's
 * @param original clean latents of that shape; they stay the caller's
 */
export function prepareLatents<T extends Tensor>(
  scheduler: SchedulerMixin,
  shape: readonly number[],
  generator: Generators,
  { noise, original, begin = 0 }: { noise?: T; original?: T; begin?: number } = {},
): T {
  return tf.tidy(() => {
    const drawn = noise ?? (randnTensor<tf.Rank>(shape, generator) as T);
    return original
      ? (scheduler.addNoise(original, drawn, scheduler.timesteps[begin]!) as T)
      : tf.mul<T>(drawn, scheduler.initNoiseSigma);
  });
}

/** @throws InvalidArgumentError unless `latents` are a tensor of that shape */
export function checkLatents(where: string, latents: unknown, shape: readonly number[]): void {
  if (!(latents instanceof tf.Tensor) || latents.isDisposed || `${latents.shape}` !== `${shape}`) {
    throw invalid(where, 'latents', `a tensor [${shape}]`, latents);
  }
}

/** @throws InvalidArgumentError unless the caller's noise, where it is given, has that shape */
export function checkGivenLatents(where: string, latents: Tensor | undefined, shape: readonly number[]): void {
  if (latents !== undefined) {
    checkLatents(where, latents, shape);
  }
}

/**
 * Pictures to latents, as the denoising model knows them: (sample - shift_factor) * scaling_factor.
 *
 * @param image [N,H,W,3] in -1..1; stays the caller's
 * @param generator one for the batch, or one for each picture
 * @returns [N,h,w,C]
 */
export function encodeImage(vae: Autoencoder, image: Tensor4D, generator: Generators): Tensor4D {
  const { scalingFactor, shiftFactor } = vae.parsed;
  return tf.tidy(() => {
    const sample = vae.encode(image).sample(generator);
    return tf.mul(shiftFactor ? tf.sub(sample, shiftFactor) : sample, scalingFactor);
  });
}

/**
 * Latents to pictures.
 *
 * @param latents [N,h,w,C] as the denoising model knows them; they stay the caller's
 * @returns [N,H,W,3] in 0..1
 */
export function decodeLatents(vae: Autoencoder, latents: Tensor4D): Tensor4D {
  const { scalingFactor, shiftFactor } = vae.parsed;
  return tf.tidy(() => {
    const scaled = tf.div<Tensor4D>(latents, scalingFactor);
    const decoded = vae.decode(shiftFactor ? tf.add(scaled, shiftFactor) : scaled);
    return tf.clipByValue(tf.add<Tensor4D>(tf.div(decoded, 2), 0.5), 0, 1);
  });
}

/**
 * Repeats a batch until it has `count` items: [a, b] becomes [a, b, a, b].
 *
 * @returns a new tensor
 * @throws InvalidArgumentError when `count` is no multiple of the batch
 */
export function repeatBatch<T extends Tensor>(where: string, name: string, x: T, count: number): T {
  const [batch] = x.shape;
  if (count % batch! !== 0) {
    throw invalid(where, name, `a batch that divides the ${count} pictures to draw`, batch);
  }
  return tf.tile(x, [count / batch!, ...x.shape.slice(1).map(() => 1)]);
}

/**
 * Latents as the tokens of a transformer: each patch of `patch` x `patch` positions is one token, channels first
 * (diffusers/pipelines/flux, _pack_latents).
 *
 * @param latents [B,h,w,C]
 * @returns [B, (h / patch) (w / patch), C patch^2]
 */
export function packLatents(latents: Tensor4D, patch = 2): Tensor3D {
  const [b, h, w, c] = latents.shape;
  if (h % patch !== 0 || w % patch !== 0) {
    throw invalid('packLatents', 'latents', `height and width that are multiples of ${patch}`, latents);
  }
  return tf.tidy(() => {
    const [rows, columns] = [h / patch, w / patch];
    const split = tf.reshape(latents, [b, rows, patch, columns, patch, c]);
    return tf.reshape(tf.transpose(split, [0, 1, 3, 5, 2, 4]), [b, rows * columns, c * patch * patch]);
  });
}

/**
 * The inverse of `packLatents`.
 *
 * @param tokens [B, (h / patch) (w / patch), C patch^2]
 * @param size height and width of the latents
 * @returns [B,h,w,C]
 */
export function unpackLatents(
  tokens: Tensor3D,
  { height, width }: { height: number; width: number },
  patch = 2,
): Tensor4D {
  const [b, count, size] = tokens.shape;
  const [rows, columns, c] = [height / patch, width / patch, size / patch ** 2];
  if (rows * columns !== count || !Number.isInteger(c)) {
    throw invalid('unpackLatents', 'tokens', `[B, ${rows * columns}, multiple of ${patch ** 2}]`, tokens);
  }
  return tf.tidy(() => {
    const split = tf.reshape(tokens, [b, rows, columns, c, patch, patch]);
    return tf.reshape(tf.transpose(split, [0, 1, 4, 2, 5, 3]), [b, height, width, c]);
  });
}
