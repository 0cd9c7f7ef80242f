import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../../errors.js';
import type { Info } from '../backend.js';
import { axesOf, type KernelArguments, type KernelDefinition, kernel } from './definition.js';

function reduce(name: string, { inputs, backend, attrs }: KernelArguments): Info {
  const x = inputs.x!;
  const axes = axesOf(attrs.reductionIndices ?? attrs.axis, x.shape);
  const result = backend.run1(name, [x], { axis: axes });
  return attrs.keepDims ? { ...result, shape: tf.backend_util.expandShapeToKeepDim(result.shape, axes) } : result;
}

const last = (name: string, attribute: 'dim' | 'axis'): KernelDefinition =>
  kernel(name, ({ inputs, backend, attrs }) => {
    const logits = inputs.logits!;
    const axis = attrs[attribute] ?? -1;
    if (axis !== -1 && axis !== logits.shape.length - 1) {
      throw new InvalidArgumentError(`[${name}] works along the last axis, got ${axis} of rank ${logits.shape.length}`);
    }
    return backend.run1(name, [logits]);
  });

const cumulative = (name: string): KernelDefinition =>
  kernel(name, ({ inputs, backend, attrs }) => {
    const axis = tf.util.parseAxisParam(attrs.axis, inputs.x!.shape)[0]!;
    return backend.run1(name, [inputs.x], { axis, exclusive: !!attrs.exclusive, reverse: !!attrs.reverse });
  });

export const reduction: KernelDefinition[] = [
  ...['Sum', 'Prod', 'Mean', 'Max', 'Min', 'All', 'Any'].map((name) => kernel(name, (args) => reduce(name, args))),
  ...['ArgMax', 'ArgMin'].map((name) =>
    kernel(name, ({ inputs, backend, attrs }) =>
      backend.run1(name, [inputs.x], { axis: axesOf(attrs.axis, inputs.x!.shape) }),
    ),
  ),
  last('Softmax', 'dim'),
  last('LogSoftmax', 'axis'),
  cumulative('Cumsum'),
  cumulative('Cumprod'),
];
