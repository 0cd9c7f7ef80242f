import type { Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { type PhysicalType, supportsPhysicalTypes } from './types.js';

/** The same numbers stored as `dtype` where the active backend can; elsewhere the tensor itself. */
export function toPhysicalType<T extends Tensor>(x: T, dtype: PhysicalType): T {
  const backend = tf.backend();
  return supportsPhysicalTypes(backend) && backend.physicalType(x) !== dtype ? backend.toPhysical(x, dtype) : x;
}

/** How the active backend stores a float32 tensor. */
export function physicalTypeOf(x: Tensor): PhysicalType {
  const backend = tf.backend();
  return supportsPhysicalTypes(backend) ? backend.physicalType(x) : 'float32';
}
