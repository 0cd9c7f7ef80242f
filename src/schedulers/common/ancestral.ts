import { f32, sqrt32 } from './numeric.js';

/** Noise level to step down to, and of the noise that is then added to arrive at `next`; float32. */
export function ancestralSplit(sigma: number, next: number): { up: number; down: number } {
  const [from, to] = [f32(sigma * sigma), f32(next * next)];
  const up = sqrt32(f32(f32(to * f32(from - to)) / from));
  return { up, down: sqrt32(f32(to - f32(up * up))) };
}
