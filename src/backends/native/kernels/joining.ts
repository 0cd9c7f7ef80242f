import * as tf from '@tensorflow/tfjs-core';
import { type KernelDefinition, kernel } from './definition.js';

const { backend_util, util } = tf;

export const joining: KernelDefinition[] = [
  kernel('Concat', ({ inputs, backend, attrs }) => {
    const given = Object.values(inputs);
    const axis = util.parseAxisParam(attrs.axis, given[0]!.shape)[0]!;
    const shapes = given.map(({ shape }) => shape);
    backend_util.assertParamsConsistent(shapes, axis);
    const shape = backend_util.computeOutShape(shapes, axis);
    if (util.sizeFromShape(shape) === 0) return backend.makeTensorInfo(shape, given[0]!.dtype, null);
    const filled = given.filter((x) => util.sizeFromShape(x.shape) > 0);
    return filled.length === 1 ? backend.share(filled[0]!) : backend.run1('Concat', filled, { axis });
  }),
  kernel('Pack', ({ inputs, backend, attrs }) => {
    const given = Object.values(inputs);
    for (const { shape, dtype } of given) {
      util.assertShapesMatch(given[0]!.shape, shape, 'All tensors passed to stack must have matching shapes');
      util.assert(dtype === given[0]!.dtype, () => 'All tensors passed to stack must have matching dtypes');
    }
    const rank = given[0]!.shape.length;
    return backend.run1('Pack', given, { axis: attrs.axis < 0 ? attrs.axis + rank + 1 : attrs.axis });
  }),
];
