import * as tf from '@tensorflow/tfjs-core';
import type { Info, NativeBackend } from '../backend.js';
import { type KernelDefinition, kernel } from './definition.js';

const { slice_util, backend_util, util } = tf;

/** All of them are slices with strides. */
const NEEDS = ['StridedSlice'];

function slice(backend: NativeBackend, x: Info, begin: number[], size: number[], strides?: number[]): Info {
  return backend.run1('StridedSlice', [x], { begin, size, strides });
}

/** The part of x from `begin` on along one axis. */
function along(backend: NativeBackend, x: Info, axis: number, begin: number, length: number): Info {
  const start = x.shape.map((_, i) => (i === axis ? begin : 0));
  const size = x.shape.map((dim, i) => (i === axis ? length : dim));
  return slice(backend, x, start, size);
}

/** The same tensor seen with another shape; the reference of `info` goes over to the result. */
const reshaped = (info: Info, shape: number[]): Info => ({ ...info, shape });

export const slicing: KernelDefinition[] = [
  kernel(
    'Slice',
    ({ inputs, backend, attrs }) => {
      const [begin, size] = slice_util.parseSliceParams(inputs.x as tf.Tensor, attrs.begin, attrs.size);
      slice_util.assertParamsValid(inputs.x!, begin, size);
      return slice(backend, inputs.x!, begin, size);
    },
    NEEDS,
  ),
  kernel('StridedSlice', ({ inputs, backend, attrs }) => {
    const x = inputs.x!;
    const info = slice_util.sliceInfo(
      x.shape,
      attrs.begin,
      attrs.end,
      attrs.strides,
      attrs.beginMask,
      attrs.endMask,
      attrs.ellipsisMask,
      attrs.newAxisMask,
      attrs.shrinkAxisMask,
    );
    if (info.isIdentity) return backend.share(x, info.finalShape);
    const size = slice_util.computeOutShape(info.begin, info.end, info.strides);
    return reshaped(slice(backend, x, info.begin, size, info.strides), info.finalShape);
  }),
  kernel(
    'SplitV',
    ({ inputs, backend, attrs }) => {
      const x = inputs.x!;
      const axis = util.parseAxisParam(attrs.axis, x.shape)[0]!;
      let begin = 0;
      return backend_util.prepareSplitSize(x as tf.Tensor, attrs.numOrSizeSplits, axis).map((length) => {
        begin += length;
        return along(backend, x, axis, begin - length, length);
      });
    },
    NEEDS,
  ),
  kernel(
    'Unpack',
    ({ inputs, backend, attrs }) => {
      const x = inputs.value!;
      const axis = attrs.axis < 0 ? attrs.axis + x.shape.length : attrs.axis;
      const shape = x.shape.filter((_, i) => i !== axis);
      return Array.from({ length: x.shape[axis]! }, (_, i) => reshaped(along(backend, x, axis, i, 1), shape));
    },
    NEEDS,
  ),
];
