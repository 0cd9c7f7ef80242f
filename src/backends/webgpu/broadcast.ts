import * as tf from '@tensorflow/tfjs-core';
import { param } from './wgsl.js';

/** How several operands are walked through along with a result: few axes, each operand with a stride per axis. */
export interface Walk {
  /** Sizes, outermost first. */
  dims: number[];
  /** Per operand, in numbers; 0 where it is repeated. */
  strides: number[][];
  /** Numbers of the result per invocation. */
  width: 1 | 4;
  /** Per operand: whether its numbers along the last axis lie side by side (else it gives one number to all four). */
  vector: boolean[];
}

/** Strides of `shape` in a result of shape `out`, 0 along repeated axes. */
export function broadcastStrides(shape: readonly number[], out: readonly number[]): number[] {
  const own = tf.util.computeStrides([...shape]).concat(shape.length > 0 ? 1 : []);
  const missing = out.length - shape.length;
  return out.map((_, i) => (i < missing || shape[i - missing] === 1 ? 0 : own[i - missing]!));
}

/** Joins neighbouring axes that every operand walks through as one, and leaves out axes of size 1. */
function collapse(dims: number[], strides: number[][]): { dims: number[]; strides: number[][] } {
  const result: { dims: number[]; strides: number[][] } = { dims: [], strides: strides.map(() => []) };
  dims.forEach((size, i) => {
    if (size === 1) {
      return;
    }
    const last = result.dims.length - 1;
    const joins = last >= 0 && strides.every((s, k) => result.strides[k]![last] === s[i]! * size);
    if (joins) {
      result.dims[last]! *= size;
      strides.forEach((s, k) => {
        result.strides[k]![last] = s[i]!;
      });
    } else {
      result.dims.push(size);
      strides.forEach((s, k) => {
        result.strides[k]!.push(s[i]!);
      });
    }
  });
  return result.dims.length > 0 ? result : { dims: [1], strides: strides.map(() => [0]) };
}

/**
 * @param strides per operand and axis of `dims`; negative ones walk backwards
 * @param offsets of the operands' first numbers; they only matter for vectors
 * @param whole operands that lie as the result does may be read past their end, in vectors
 */
export function planWalk(dims: number[], strides: number[][], offsets: number[] = [], whole = false): Walk {
  const walk = collapse(dims, strides);
  const last = walk.dims.length - 1;
  const vector = walk.strides.map((s) => s[last] === 1);
  const flat = whole && last === 0 && walk.strides.every((s) => s[0] === 1 || s[0] === 0);
  const fits = walk.strides.every(
    (s, k) =>
      (s[last] === 1 || s[last] === 0) &&
      (s[last] === 0 || ((offsets[k] ?? 0) % 4 === 0 && s.every((stride, axis) => axis === last || stride % 4 === 0))),
  );
  const width = (walk.dims[last]! % 4 === 0 || flat) && fits ? 4 : 1;
  return { ...walk, width, vector };
}

/** Invocations of a walk. */
export function walkCount({ dims, width }: Walk): number {
  const rows = dims.slice(0, -1).reduce((a, b) => a * b, 1);
  return rows * Math.ceil(dims.at(-1)! / width);
}

/** Parameters of a walk, which start at `param(first)`: sizes, then each operand's strides, in units of its binding. */
export function walkParams(walk: Walk): number[] {
  const { dims, strides, width } = walk;
  const sizes = dims.map((size, i) => (i === dims.length - 1 ? Math.ceil(size / width) : size));
  const steps = strides.map((s, k) => s.map((stride, i) => step(walk, k, stride, i)));
  return [...sizes, ...steps.flat()];
}

function step({ dims, width, vector }: Walk, operand: number, stride: number, axis: number): number {
  if (width === 1 || !vector[operand]) {
    return stride;
  }
  return axis === dims.length - 1 ? stride : stride / 4;
}

/** What a shader's text depends on. */
export const walkKey = ({ dims, width, vector }: Walk): string =>
  `${dims.length}x${width}${vector.map(Number).join('')}`;

/** WGSL that makes `at0`, `at1`, ... (i32): where each operand's number for invocation i lies. */
export function walkCode(walk: Walk, first: number): string {
  const { dims, strides } = walk;
  const rank = dims.length;
  const lines = ['  var rest = i;', ...strides.map((_, k) => `  var at${k} = 0i;`)];
  for (let axis = rank - 1; axis >= 0; axis--) {
    const size = param(first + axis);
    lines.push(axis > 0 ? `  let c${axis} = i32(rest % ${size}); rest /= ${size};` : '  let c0 = i32(rest);');
    strides.forEach((_, k) => {
      lines.push(`  at${k} += c${axis} * bitcast<i32>(${param(first + rank * (k + 1) + axis)});`);
    });
  }
  return lines.join('\n');
}
