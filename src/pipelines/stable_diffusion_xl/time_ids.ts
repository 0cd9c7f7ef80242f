import type { Tensor2D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { ConfigError } from '../../errors.js';
import type { UNet2DConditionModel } from '../../models/index.js';
import { is } from '../../utils/check.js';
import type { Branch } from '../common/conditioning.js';
import { type Check, type Checks, NUMBER } from '../common/options.js';

/** Height and width, or top and left, in pixels. */
export type SizePair = readonly [number, number];

/** What SDXL is told of the picture that it draws (Podell et al. 2023, 2.2). */
export interface TimeIdOptions {
  /** Height and width that the picture seems to have had before it was scaled. Default: those of the picture. */
  originalSize?: SizePair;
  /** Top and left of the crop that the picture seems to be. Default [0, 0]. */
  cropsCoordsTopLeft?: SizePair;
  /** Height and width that the picture seems to be drawn for. Default: those of the picture. */
  targetSize?: SizePair;
  /** The same for the negative prompt. Default: the prompt's. */
  negativeOriginalSize?: SizePair;
  negativeCropsCoordsTopLeft?: SizePair;
  negativeTargetSize?: SizePair;
}

/** What the refiner is told in place of the target size. */
export interface AestheticOptions {
  /** Beauty of the picture, about 0 to 10. Default 6. */
  aestheticScore?: number;
  /** Default 2.5. */
  negativeAestheticScore?: number;
}

const PAIR: Check = [
  (value) => Array.isArray(value) && value.length === 2 && value.every(is.number),
  'two numbers, [height, width] or [top, left]',
];

export const TIME_ID_CHECKS: Checks<TimeIdOptions> = {
  originalSize: PAIR,
  cropsCoordsTopLeft: PAIR,
  targetSize: PAIR,
  negativeOriginalSize: PAIR,
  negativeCropsCoordsTopLeft: PAIR,
  negativeTargetSize: PAIR,
};

export const AESTHETIC_CHECKS: Checks<AestheticOptions> = { aestheticScore: NUMBER, negativeAestheticScore: NUMBER };

/**
 * Text to picture: the negative prompt has sizes of its own where both of them are given (StableDiffusionXLPipeline's
 * _get_add_time_ids).
 *
 * @param size height and width of the picture
 */
export function textToImageIds(branch: Branch, size: SizePair, options: TimeIdOptions): number[] {
  const { originalSize = size, cropsCoordsTopLeft = [0, 0], targetSize = size } = options;
  const { negativeOriginalSize, negativeCropsCoordsTopLeft = [0, 0], negativeTargetSize } = options;
  return branch === 'unconditional' && negativeOriginalSize && negativeTargetSize
    ? [...negativeOriginalSize, ...negativeCropsCoordsTopLeft, ...negativeTargetSize]
    : [...originalSize, ...cropsCoordsTopLeft, ...targetSize];
}

/**
 * Picture to picture: each negative size by itself, or scores of beauty in place of the target size
 * (StableDiffusionXLImg2ImgPipeline's _get_add_time_ids).
 */
export function imageToImageIds(
  branch: Branch,
  size: SizePair,
  options: TimeIdOptions & AestheticOptions & { scores: boolean },
): number[] {
  const { originalSize = size, cropsCoordsTopLeft = [0, 0], targetSize = size, scores } = options;
  const { negativeOriginalSize = originalSize, negativeTargetSize = targetSize } = options;
  const { negativeCropsCoordsTopLeft = [0, 0], aestheticScore = 6, negativeAestheticScore = 2.5 } = options;
  if (branch !== 'unconditional') {
    return [...originalSize, ...cropsCoordsTopLeft, ...(scores ? [aestheticScore] : targetSize)];
  }
  return scores
    ? [...negativeOriginalSize, ...negativeCropsCoordsTopLeft, negativeAestheticScore]
    : [...negativeOriginalSize, ...cropsCoordsTopLeft, ...negativeTargetSize];
}

/**
 * @returns [B, ids]
 * @throws ConfigError for a UNet that is told another number of them
 */
export function timeIds(unet: UNet2DConditionModel, ids: readonly number[], pooled: number, batch: number): Tensor2D {
  const { projectionClassEmbeddingsInputDim: expected, additionTimeEmbedDim: dim } = unet.parsed;
  const got = pooled + dim! * ids.length;
  if (got !== expected) {
    throw new ConfigError(
      `the UNet is told ${expected} numbers of text and sizes (projection_class_embeddings_input_dim), got ${pooled} ` +
        `of the text encoder and ${ids.length} x ${dim} of sizes; ` +
        (Math.abs(got - expected!) === dim
          ? "model_index.json's requires_aesthetics_score has to be true for the refiner and false for other models"
          : 'they come from different checkpoints'),
    );
  }
  return tf.tidy(() => tf.tile(tf.tensor2d([...ids], [1, ids.length]), [batch, 1]));
}
