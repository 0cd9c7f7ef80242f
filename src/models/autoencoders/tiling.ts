import type { Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';

/** Geometry of a tiled pass: sizes along an edge, of the input in its pixels and of the output in its own. */
export interface Tiling {
  /** Edge of an input tile. */
  inputTile: number;
  /** Edge of the output tile that it gives. */
  outputTile: number;
  /** Share of a tile that the next one covers, too. */
  overlap: number;
}

type Axis = 1 | 2;

function part(x: Tensor4D, axis: Axis, begin: number, size: number): Tensor4D {
  const begins: [number, number, number, number] = [0, 0, 0, 0];
  const sizes: [number, number, number, number] = [-1, -1, -1, -1];
  begins[axis] = begin;
  sizes[axis] = Math.min(size, x.shape[axis] - begin);
  return tf.slice(x, begins, sizes);
}

/** `next` with its first rows (axis 1) or columns (axis 2) faded over from the last ones of `previous`. */
function blend(previous: Tensor4D, next: Tensor4D, extent: number, axis: Axis): Tensor4D {
  const size = Math.min(previous.shape[axis], next.shape[axis], extent);
  if (size === 0) {
    return next;
  }
  const shape: [number, number, number, number] = [1, 1, 1, 1];
  shape[axis] = size;
  const weight = tf.reshape(tf.div(tf.range(0, size), size), shape);
  const faded = tf.add(
    tf.mul(part(previous, axis, previous.shape[axis] - size, size), tf.sub(1, weight)),
    tf.mul(part(next, axis, 0, size), weight),
  ) as Tensor4D;
  const rest = next.shape[axis] - size;
  return rest === 0 ? faded : tf.concat([faded, part(next, axis, size, rest)], axis);
}

/**
 * Runs `f` over overlapping tiles and fades them into one another, so that memory depends on the tile and not on the
 * picture (diffusers/models/autoencoders/autoencoder_kl.py, tiled_decode and tiled_encode).
 *
 * @param x [N,H,W,C]
 * @returns [N,H',W',C'], in the ratio of the tiles
 */
export function tiled(x: Tensor4D, tiling: Tiling, f: (tile: Tensor4D) => Tensor4D): Tensor4D {
  const step = Math.trunc(tiling.inputTile * (1 - tiling.overlap));
  const extent = Math.trunc(tiling.outputTile * tiling.overlap);
  const limit = tiling.outputTile - extent;
  const rows: Tensor4D[] = [];
  let above: Tensor4D[] = [];
  for (let y = 0; y < x.shape[1]; y += step) {
    const tiles: Tensor4D[] = [];
    for (let left = 0, column = 0; left < x.shape[2]; left += step, column++) {
      const tile = tf.tidy(() => {
        const raw = f(part(part(x, 1, y, tiling.inputTile), 2, left, tiling.inputTile));
        const down = above[column] ? blend(above[column]!, raw, extent, 1) : raw;
        return column > 0 ? blend(tiles[column - 1]!, down, extent, 2) : down;
      });
      tiles.push(tile);
    }
    rows.push(
      tf.tidy(() =>
        tf.concat(
          tiles.map((tile) => part(part(tile, 1, 0, limit), 2, 0, limit)),
          2,
        ),
      ),
    );
    tf.dispose(above);
    above = tiles;
  }
  tf.dispose(above);
  const result = tf.concat(rows, 1);
  tf.dispose(rows);
  return result;
}
