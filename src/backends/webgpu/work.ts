import type * as tf from '@tensorflow/tfjs-core';

export type Info = tf.TensorInfo;

/** A tensor as a kernel binds it. */
export interface Operand {
  name: string;
  of: Info;
  /** 4: as vectors of four numbers. */
  width?: 1 | 4;
  /** Bind float32 numbers as their bits. */
  bits?: boolean;
}

/** One run of a kernel's shader. */
export interface Work {
  /** The kernel's name, for errors and recordings. */
  kernel: string;
  /** All that the code depends on beside the operands' types. */
  key: string;
  /** The shader without declarations of its bindings, as `in0` or whatever the operands are called. */
  code: () => string;
  inputs: Operand[];
  outputs: Operand[];
  /** Numbers by position: integers as they are, floats by `float()`. */
  params: number[];
  groups: [number, number, number];
  flops?: number;
}
