/** Relative L2 error ||actual - expected|| / ||expected||; NaN anywhere gives NaN, which no bound accepts. */
export function relativeL2(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) {
    throw new Error(`compared ${actual.length} numbers with ${expected.length}`);
  }
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    const d = actual[i]! - expected[i]!;
    difference += d * d;
    norm += expected[i]! * expected[i]!;
  }
  return norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
}

/** Transposes [N,C,H,W] data to [N,H,W,C]. */
export function toNHWC(data: ArrayLike<number>, [n, c, h, w]: number[]): Float32Array {
  const out = new Float32Array(data.length);
  let o = 0;
  for (let in_ = 0; in_ < n!; in_++)
    for (let y = 0; y < h!; y++)
      for (let x = 0; x < w!; x++)
        for (let k = 0; k < c!; k++) {
          out[o++] = data[((in_ * c! + k) * h! + y) * w! + x]!;
        }
  return out;
}
