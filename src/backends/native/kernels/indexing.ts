import * as tf from '@tensorflow/tfjs-core';
import { forward } from '../forward.js';
import { type KernelDefinition, kernel } from './definition.js';

const { backend_util, util } = tf;

export const indexing: KernelDefinition[] = [
  kernel('GatherV2', ({ inputs, backend, attrs }) => {
    const { x, indices } = inputs as { x: tf.Tensor; indices: tf.Tensor };
    const axis = util.parseAxisParam(attrs.axis, x.shape)[0]!;
    const info = backend_util.segment_util.collectGatherOpShapeInfo(x, indices, axis, attrs.batchDims ?? 0);
    const perBatch = util.sizeFromShape(indices.shape) / info.batchSize;
    const result = backend.run1('GatherV2', [
      { dataId: x.dataId, dtype: x.dtype, shape: [info.batchSize, info.outerSize, info.dimSize, info.sliceSize] },
      { dataId: indices.dataId, dtype: indices.dtype, shape: [info.batchSize, perBatch] },
    ]);
    return { ...result, shape: info.outputShape };
  }),
  kernel('OneHot', ({ inputs, backend, attrs }) =>
    backend.run1('OneHot', [inputs.indices], {
      depth: attrs.depth,
      onValue: attrs.onValue,
      offValue: attrs.offValue,
      dtype: attrs.dtype,
    }),
  ),
  kernel('TopK', ({ inputs, backend, attrs }) => backend.run('TopK', [inputs.x], { k: attrs.k })),
  kernel('UnsortedSegmentSum', (args) => {
    const { inputs, backend, attrs } = args;
    const x = inputs.x!;
    if (inputs.segmentIds!.shape.length !== 1 || x.shape.length === 0) return forward('UnsortedSegmentSum', args);
    const rest = x.shape.slice(1);
    const result = backend.run1(
      'UnsortedSegmentSum',
      [{ dataId: x.dataId, dtype: x.dtype, shape: [x.shape[0]!, util.sizeFromShape(rest)] }, inputs.segmentIds],
      { numSegments: attrs.numSegments },
    );
    return { ...result, shape: [attrs.numSegments, ...rest] };
  }),
];
