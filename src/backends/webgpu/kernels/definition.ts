import * as tf from '@tensorflow/tfjs-core';
import { BackendError } from '../../../errors.js';
import type { Info, WebGpuBackend } from '../backend.js';
import type { ElementType } from '../wgsl.js';

export interface KernelArguments {
  inputs: Record<string, Info>;
  backend: WebGpuBackend;
  // biome-ignore lint/suspicious/noExplicitAny: attributes are as different as the kernels
  attrs: any;
}

export interface KernelDefinition {
  name: string;
  run(args: KernelArguments): Info | Info[];
}

const isNumeric = ({ dtype }: Info) => dtype === 'float32' || dtype === 'int32' || dtype === 'bool';

/** A kernel for float32, int32 and bool tensors; others are refused. */
export function kernel(name: string, run: KernelDefinition['run']): KernelDefinition {
  return {
    name,
    run: (args) => {
      for (const input of Object.values(args.inputs)) {
        if (input && !isNumeric(input)) {
          throw new BackendError(`[${name}] the backend webgpu works on float32, int32 and bool, got ${input.dtype}`);
        }
      }
      return run(args);
    },
  };
}

/** Axes as tfjs-core's attributes give them, as a list of non-negative numbers. */
export function axesOf(axis: number | number[] | undefined | null, shape: number[]): number[] {
  return tf.util.parseAxisParam(axis ?? shape.map((_, i) => i), shape);
}

export const sizeOf = ({ shape }: { shape: number[] }): number => tf.util.sizeFromShape(shape);

/** How the result of two operands lies in memory: a single number takes over the other's type, else float32 wins. */
export function promote(backend: WebGpuBackend, a: Info, b: Info): ElementType {
  const [left, right] = [backend.typeOf(a), backend.typeOf(b)];
  if (left === right || right === 'i32') {
    return left;
  }
  if (left === 'i32') {
    return right;
  }
  if (sizeOf(a) === 1 && sizeOf(b) !== 1) {
    return right;
  }
  return sizeOf(b) === 1 && sizeOf(a) !== 1 ? left : 'f32';
}
