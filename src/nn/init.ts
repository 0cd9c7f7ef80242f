import type { PhysicalType } from '../backends/types.js';
import type { Parameter } from './parameter.js';

/** sfc32 (Doty-Humphrey): small, fast and good enough for weights that only have to look like weights. */
function sfc32(seed: number): () => number {
  let [a, b, c, counter] = [seed | 0, 0x9e3779b9 | 0, 0x243f6a88 | 0, 1];
  const next = () => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t;
    return (t >>> 0) / 4294967296;
  };
  for (let i = 0; i < 12; i++) {
    next();
  }
  return next;
}

/**
 * Gives every parameter the weights that torch's layers start with (uniform within 1 / sqrt(fan in), unit norms), for
 * tests and benchmarks. The same seed gives the same weights; they are not torch's numbers. Native backends store them
 * as `dtype`.
 */
export function initRandom(parameters: readonly Parameter[], seed = 0, dtype: PhysicalType = 'float32'): void {
  const random = sfc32(seed);
  for (const parameter of parameters) {
    const data = new Float32Array(parameter.size);
    const bound = 1 / Math.sqrt(Math.max(1, parameter.fanIn));
    switch (parameter.initializer) {
      case 'ones':
        data.fill(1);
        break;
      case 'zeros':
        break;
      case 'uniform':
        for (let i = 0; i < data.length; i++) {
          data[i] = (2 * random() - 1) * bound;
        }
        break;
      case 'normal':
        for (let i = 0; i < data.length; i++) {
          data[i] = 0.02 * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
        }
        break;
    }
    parameter.load(new Uint8Array(data.buffer), 'F32', dtype);
  }
}
