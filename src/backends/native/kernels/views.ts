import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../../errors.js';
import type { Info } from '../backend.js';
import type { KernelArguments, KernelDefinition } from './definition.js';

function reshape({ inputs, backend, attrs }: KernelArguments): Info {
  const x = inputs.x!;
  const size = tf.util.sizeFromShape(x.shape);
  const shape = tf.util.inferFromImplicitShape(attrs.shape, size);
  if (tf.util.sizeFromShape(shape) !== size) {
    throw new InvalidArgumentError(`[Reshape] shape [${shape}] has another number of elements than [${x.shape}]`);
  }
  return backend.share(x, shape);
}

/** Kernels that share the data of their input, whatever its dtype. */
export const views: KernelDefinition[] = [
  { name: 'Identity', needs: [], run: ({ inputs, backend }) => backend.share(inputs.x!) },
  { name: 'Reshape', needs: [], run: reshape },
  {
    name: 'ExpandDims',
    needs: [],
    run: ({ inputs, backend, attrs }) => {
      const { input } = inputs;
      const shape = [...input!.shape];
      const axis = attrs.dim < 0 ? attrs.dim + shape.length + 1 : attrs.dim;
      if (!(axis >= 0 && axis <= shape.length)) {
        throw new InvalidArgumentError(
          `Axis must be in the interval [${-(shape.length + 1)}, ${shape.length}], got ${attrs.dim}`,
        );
      }
      shape.splice(axis, 0, 1);
      return backend.share(input!, shape);
    },
  },
];
