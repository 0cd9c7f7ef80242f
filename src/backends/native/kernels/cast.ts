import type * as tf from '@tensorflow/tfjs-core';
import { forward } from '../forward.js';
import { kernel } from './definition.js';

export const cast = kernel('Cast', (args) => {
  const { inputs, backend, attrs } = args;
  const { dtype } = attrs as { dtype: tf.DataType };
  if (dtype === inputs.x!.dtype) return backend.share(inputs.x!);
  if (dtype !== 'float32' && dtype !== 'int32' && dtype !== 'bool') return forward('Cast', args);
  return backend.run1('Cast', [inputs.x], { dtype });
});
