/**
 * The arithmetic of numpy and PyTorch that the schedules are made with. diffusers computes schedules partly in float64
 * (numpy) and partly in float32 (torch); rounding where it rounds keeps sigmas and coefficients equal to its own.
 * Functions named `...32` return the nearest float32 number.
 */

/** Rounds to float32. */
export const f32 = Math.fround;
export const sqrt32 = (x: number): number => f32(Math.sqrt(x));
export const exp32 = (x: number): number => f32(Math.exp(x));
export const expm1_32 = (x: number): number => f32(Math.expm1(x));
export const log32 = (x: number): number => f32(Math.log(x));

/** `np.linspace`. */
export function linspace(start: number, stop: number, count: number, endpoint = true): number[] {
  const intervals = endpoint ? count - 1 : count;
  const step = intervals > 0 ? (stop - start) / intervals : stop - start;
  const out = Array.from({ length: count }, (_, i) => i * step + start);
  if (endpoint && count > 1) {
    out[count - 1] = stop;
  }
  return out;
}

/** `np.arange` of floating point numbers, with its way of rounding the step. */
export function arange(start: number, stop: number, step: number): number[] {
  const length = Math.max(0, Math.ceil((stop - start) / step));
  const rounded = start + step - start;
  return Array.from({ length }, (_, i) => (i === 1 ? start + step : start + i * rounded));
}

/** `np.round`: halves go to the even neighbour. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) {
    return rest < 0.5 ? floor : floor + 1;
  }
  return floor % 2 === 0 ? floor : floor + 1;
}

/** `np.interp(x, np.arange(len(values)), values)`: linear between the values, constant beyond their ends. */
export function interpolate(x: number, values: ArrayLike<number>): number {
  const last = values.length - 1;
  if (x >= last) {
    return values[last]!;
  }
  if (x < 0) {
    return values[0]!;
  }
  const i = Math.floor(x);
  return x === i ? values[i]! : (values[i + 1]! - values[i]!) * (x - i) + values[i]!;
}

/** `torch.linspace(start, end, steps, dtype=torch.float32)`, which counts from both ends. */
export function torchLinspace32(start: number, end: number, steps: number): number[] {
  const [a, b] = [f32(start), f32(end)];
  if (steps === 1) {
    return [a];
  }
  const step = f32(f32(b - a) / (steps - 1));
  const half = Math.floor(steps / 2);
  return Array.from({ length: steps }, (_, i) => f32(i < half ? a + step * i : b - step * (steps - 1 - i)));
}

/** `torch.cumprod` of float32 numbers, which multiplies in float64 and rounds each result. */
export function cumulativeProduct32(values: readonly number[]): number[] {
  let product = 1;
  return values.map((value) => f32((product *= value)));
}
