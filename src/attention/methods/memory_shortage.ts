import type { AttentionShape } from '../../ops/attention/score_matrix.js';

const LATENT_PIXELS = 8;
const STEP = 64;

export function formatBytes(bytes: number): string {
  const units = ['KB', 'MB', 'GB'];
  const power = Math.min(3, Math.max(1, Math.floor(Math.log2(bytes) / 10)));
  return `${(bytes / 1024 ** power).toPrecision(3)} ${units[power - 1]}`;
}

/** The shape with fewer tokens; keys follow the queries in self-attention, where both are the picture. */
function withQueries(shape: AttentionShape, queries: number): AttentionShape {
  return { ...shape, queries, keys: shape.keys === shape.queries ? queries : shape.keys };
}

/** The largest number of query tokens up to shape.queries for which `fits` holds; 0 when there is none. */
function mostQueries(shape: AttentionShape, fits: (shape: AttentionShape) => boolean): number {
  let [low, high] = [0, shape.queries];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(withQueries(shape, middle))) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

/** Side of the largest square picture, a multiple of 64, whose latents have at most that many pixels. */
function squarePicture(tokens: number): number {
  return Math.floor((Math.sqrt(tokens) * LATENT_PIXELS) / STEP) * STEP;
}

/**
 * What an error about too little memory says: the class, what it needs, what is free and which size would fit.
 *
 * @param fits whether a shape fits into what is free
 */
export function describeShortage(
  name: string,
  shape: AttentionShape,
  required: number,
  free: number,
  fits: (shape: AttentionShape) => boolean,
): string {
  const { batch, heads, queries, keys } = shape;
  const tokens = mostQueries(shape, fits);
  const side = squarePicture(tokens);
  const advice =
    tokens === 0
      ? ''
      : `${tokens} of these ${queries} tokens would fit` +
        (side > 0
          ? ` (in the UNet's first level a picture of ${side} x ${side} pixels), so lower the resolution; or `
          : '; ');
  return (
    `[attention] '${name}' needs ${formatBytes(required)} for scores of ${batch} x ${heads} x ${queries} x ${keys}, ` +
    `${formatBytes(free)} is free; ${advice}take a smaller batch, or attention 'memory-efficient', which needs no such matrix`
  );
}
