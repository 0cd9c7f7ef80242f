import type { NamedAttrMap, NamedTensorMap, Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { BackendError } from '../errors.js';
import { nestedGradients } from './nested_gradients.js';

/**
 * Which form of a fused op runs: the active backend's own kernel ('native'), the composition of plain tfjs ops
 * ('composed'), or the kernel where there is one and the composition elsewhere ('auto').
 */
export type Implementation = 'auto' | 'native' | 'composed';

export interface FusedOp<I extends Record<string, Tensor | undefined>> {
  /** tfjs kernel name. */
  kernel: string;
  /** Named inputs; absent ones are undefined. */
  inputs: I;
  attrs: NamedAttrMap;
  /** The same function made of plain tfjs ops. */
  composed: (inputs: I) => Tensor;
}

/** Whether the active backend has its own kernel of that name. */
export function hasKernel(kernel: string): boolean {
  return tf.getKernel(kernel, tf.getBackend()) != null;
}

/** Decides between kernel and composition; 'native' without a kernel throws. */
export function useKernel(kernel: string, impl: Implementation): boolean {
  if (impl === 'composed') {
    return false;
  }
  const available = hasKernel(kernel);
  if (impl === 'native' && !available) {
    throw new BackendError(
      `[${kernel}] impl 'native' was asked for, but the backend '${tf.getBackend()}' has no such kernel; ` +
        `use impl 'auto' or 'composed', or a native backend`,
    );
  }
  return available;
}

/**
 * Runs a fused op. With the kernel, the gradient is that of the composition, recomputed from the op's inputs, so that
 * nothing but the inputs is kept for the backward pass.
 */
export function runFused<I extends Record<string, Tensor | undefined>>(
  op: FusedOp<I>,
  impl: Implementation = 'auto',
): Tensor {
  if (!useKernel(op.kernel, impl)) {
    return tf.tidy(() => op.composed(op.inputs));
  }
  const names = Object.keys(op.inputs).filter((name) => op.inputs[name] !== undefined);
  const named = (tensors: Tensor[]) => Object.fromEntries(names.map((name, i) => [name, tensors[i]!])) as I;
  const tensors = names.map((name) => op.inputs[name]!);
  const withGradient = tf.customGrad((...args) => {
    const save = args[names.length] as unknown as tf.GradSaveFunc;
    const inputs = args.slice(0, names.length) as Tensor[];
    save(inputs);
    const value = tf.engine().runKernel(op.kernel, named(inputs) as unknown as NamedTensorMap, op.attrs) as Tensor;
    const gradFunc = (dy: Tensor, saved: Tensor[]) => nestedGradients(() => op.composed(named(saved)), saved, dy);
    return { value, gradFunc };
  });
  return withGradient(...tensors);
}
