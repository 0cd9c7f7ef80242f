import type { Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { Tiling } from './tiling.js';

/** How far a tile is faded in at each of its rows or columns: from 0 to 1 over the overlap, 1 at the first tile. */
function ramp(size: number, overlap: number, first: boolean): Float32Array {
  const share = (i: number) => Math.min(Math.max(i / (overlap - 1), 0), 1);
  return Float32Array.from({ length: size }, (_, i) => (first ? 1 : share(i)));
}

/**
 * Runs `f` over overlapping tiles, each of which fades in over what is there
 * (diffusers/models/autoencoders/autoencoder_tiny.py, _tiled_decode and _tiled_encode).
 *
 * @param x [N,H,W,C]
 * @returns [N,H',W',C'], in the ratio of the tiles
 */
export function rampTiled(x: Tensor4D, tiling: Tiling, f: (tile: Tensor4D) => Tensor4D): Tensor4D {
  const { inputTile, outputTile, overlap } = tiling;
  const [, height, width] = x.shape;
  const step = inputTile - Math.trunc(inputTile * overlap);
  const scaled = (size: number) => Math.trunc((size * outputTile) / inputTile);
  let out: Tensor4D | null = null;
  for (let top = 0; top < height; top += step) {
    for (let left = 0; left < width; left += step) {
      const before: Tensor4D | null = out;
      const next: Tensor4D = tf.tidy(() => {
        const size = [x.shape[0], Math.min(inputTile, height - top), Math.min(inputTile, width - left), x.shape[3]];
        const tile = f(tf.slice(x, [0, top, left, 0], size as [number, number, number, number]));
        const [n, , , channels] = tile.shape;
        const canvas: Tensor4D = before ?? tf.zeros<tf.Rank.R4>([n, scaled(height), scaled(width), channels]);
        return fadeIn(
          canvas,
          tile,
          scaled(top),
          scaled(left),
          Math.trunc(inputTile * overlap) * (outputTile / inputTile),
        );
      });
      before?.dispose();
      out = next;
    }
  }
  return out!;
}

/** The canvas with a tile faded in at its place. */
function fadeIn(canvas: Tensor4D, tile: Tensor4D, top: number, left: number, overlap: number): Tensor4D {
  const [, height, width] = canvas.shape;
  const [, h, w] = tile.shape;
  const rows = tf.tensor(ramp(h, overlap, top === 0), [1, h, 1, 1]);
  const columns = tf.tensor(ramp(w, overlap, left === 0), [1, 1, w, 1]);
  const place: [number, number][] = [
    [0, 0],
    [top, height - top - h],
    [left, width - left - w],
    [0, 0],
  ];
  const share = tf.pad(tf.mul(rows, columns), place);
  return tf.add(tf.mul(canvas, tf.sub(1, share)), tf.pad(tf.mul(tile, tf.mul(rows, columns)), place));
}
