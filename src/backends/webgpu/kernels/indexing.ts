import * as tf from '@tensorflow/tfjs-core';
import { BackendError } from '../../../errors.js';
import { float, type Info } from '../backend.js';
import { type ElementType, flatGroups, flatMain, floatParam, intParam, param } from '../wgsl.js';
import { type KernelDefinition, kernel, sizeOf } from './definition.js';

const { backend_util, util } = tf;

const gather = kernel('GatherV2', ({ inputs, backend, attrs }) => {
  const { x, indices } = inputs as { x: tf.Tensor; indices: tf.Tensor };
  const axis = util.parseAxisParam(attrs.axis, x.shape)[0]!;
  const info = backend_util.segment_util.collectGatherOpShapeInfo(x, indices, axis, attrs.batchDims ?? 0);
  const perBatch = sizeOf(indices) / info.batchSize;
  const result = backend.empty(info.outputShape, x.dtype, backend.typeOf(x));
  const count = sizeOf(result);
  const { outerSize, sliceSize, dimSize } = info;
  // indices that are in the GPU's memory cannot be looked at: those that name nothing give 0 there
  const known = backend.hostValues(indices) as Int32Array | null;
  const wrong = known?.find((index) => index < 0 || index >= dimSize);
  util.assert(wrong === undefined, () => `GatherV2: the index value ${wrong} is not in [0, ${dimSize - 1}]`);
  if (count > 0) {
    backend.run({
      kernel: 'GatherV2',
      key: '',
      code: () => `alias TYPE = ${backend.typeOf(x)};
${flatMain(`  let slice = ${param(1)}; let per = ${param(2)}; let dim = ${param(3)}; let outer = ${param(4)};
  let within = i % slice; let j = i / slice % per; let o = i / slice / per % outer; let b = i / slice / per / outer;
  let index = i32(indices[b * per + j]);
  let known = index >= 0 && index < i32(dim);
  let value = x[((b * outer + o) * dim + select(0u, u32(index), known)) * slice + within];
  result[i] = select(TYPE(0), value, known);`)}`,
      inputs: [
        { name: 'x', of: x },
        { name: 'indices', of: indices },
      ],
      outputs: [{ name: 'result', of: result }],
      params: [count, sliceSize, perBatch, dimSize, outerSize],
      groups: flatGroups(count),
    });
  }
  return result;
});

const oneHot = kernel('OneHot', ({ inputs, backend, attrs }) => {
  const { depth, onValue, offValue, dtype } = attrs as {
    depth: number;
    onValue: number;
    offValue: number;
    dtype: tf.DataType;
  };
  const indices = inputs.indices!;
  const result = backend.empty([...indices.shape, depth], dtype);
  const type = dtype === 'float32' ? 'f32' : 'i32';
  const count = sizeOf(result);
  if (count > 0) {
    backend.run({
      kernel: 'OneHot',
      key: dtype,
      code: () =>
        flatMain(`  let on = i32(i % ${param(1)}) == i32(indices[i / ${param(1)}]);
  result[i] = ${type}(select(${floatParam(3)}, ${floatParam(2)}, on));`),
      inputs: [{ name: 'indices', of: indices }],
      outputs: [{ name: 'result', of: result }],
      params: [count, depth, float(Number(onValue)), float(Number(offValue))],
      groups: flatGroups(count),
    });
  }
  return result;
});

/** Every result looks through all segment ids: the order of its sum is fixed, and nothing needs atomic float sums. */
const segmentSum = kernel('UnsortedSegmentSum', ({ inputs, backend, attrs }) => {
  const { x, segmentIds } = inputs as { x: Info; segmentIds: Info };
  if (segmentIds.shape.length !== 1 || x.shape.length === 0) {
    throw new BackendError(
      `[UnsortedSegmentSum] the backend webgpu sums along the first axis, got ids [${segmentIds.shape}]`,
    );
  }
  const rest = x.shape.slice(1);
  const inner = util.sizeFromShape(rest);
  const type = backend.typeOf(x);
  const compute: ElementType = type === 'i32' ? 'i32' : 'f32';
  const result = backend.empty([attrs.numSegments, ...rest], x.dtype, type);
  const count = sizeOf(result);
  if (count > 0) {
    backend.run({
      kernel: 'UnsortedSegmentSum',
      key: '',
      code: () =>
        flatMain(`  let inner = ${param(1)};
  var sum = ${compute}(0);
  for (var j = 0u; j < ${param(2)}; j++) {
    if (i32(ids[j]) == i32(i / inner)) { sum += ${compute}(x[j * inner + i % inner]); }
  }
  result[i] = ${type}(sum);`),
      inputs: [
        { name: 'x', of: x },
        { name: 'ids', of: segmentIds },
      ],
      outputs: [{ name: 'result', of: result }],
      params: [count, inner, segmentIds.shape[0]!],
      groups: flatGroups(count),
      flops: count * segmentIds.shape[0]!,
    });
  }
  return result;
});

/** Place of a pixel of the result in the image, as tfjs's cpu kernels compute it. */
function ratios([height, width]: number[], [newHeight, newWidth]: number[], alignCorners: boolean): [number, number] {
  const along = (size: number, wanted: number) =>
    alignCorners && wanted > 1 ? (size - 1) / (wanted - 1) : size / wanted;
  return [along(height!, newHeight!), along(width!, newWidth!)];
}

const NEAREST = (center: boolean, round: boolean) => `
  let c = i % ${param(1)}; let x = i / ${param(1)} % ${param(5)}; let y = i / ${param(1)} / ${param(5)} % ${param(4)};
  let n = i / ${param(1)} / ${param(5)} / ${param(4)};
  let fy = ${floatParam(6)} * (f32(y)${center ? ' + 0.5' : ''}); let fx = ${floatParam(7)} * (f32(x)${center ? ' + 0.5' : ''});
  let sy = clamp(i32(${round ? 'floor(fy + 0.5)' : 'floor(fy)'}), 0, ${intParam(2)} - 1);
  let sx = clamp(i32(${round ? 'floor(fx + 0.5)' : 'floor(fx)'}), 0, ${intParam(3)} - 1);
  result[i] = images[((n * ${param(2)} + u32(sy)) * ${param(3)} + u32(sx)) * ${param(1)} + c];`;

const BILINEAR = (center: boolean) => `
  let c = i % ${param(1)}; let x = i / ${param(1)} % ${param(5)}; let y = i / ${param(1)} / ${param(5)} % ${param(4)};
  let n = i / ${param(1)} / ${param(5)} / ${param(4)};
  let fy = ${center ? `${floatParam(6)} * (f32(y) + 0.5) - 0.5` : `${floatParam(6)} * f32(y)`};
  let fx = ${center ? `${floatParam(7)} * (f32(x) + 0.5) - 0.5` : `${floatParam(7)} * f32(x)`};
  let y0 = u32(max(0.0, floor(fy))); let y1 = u32(min(f32(${param(2)}) - 1.0, max(0.0, ceil(fy))));
  let x0 = u32(max(0.0, floor(fx))); let x1 = u32(min(f32(${param(3)}) - 1.0, max(0.0, ceil(fx))));
  let row0 = (n * ${param(2)} + y0) * ${param(3)}; let row1 = (n * ${param(2)} + y1) * ${param(3)};
  let wx = fx - f32(x0); let wy = fy - f32(y0);
  let topLeft = f32(images[(row0 + x0) * ${param(1)} + c]); let topRight = f32(images[(row0 + x1) * ${param(1)} + c]);
  let lowLeft = f32(images[(row1 + x0) * ${param(1)} + c]); let lowRight = f32(images[(row1 + x1) * ${param(1)} + c]);
  let top = topLeft + (topRight - topLeft) * wx; let low = lowLeft + (lowRight - lowLeft) * wx;
  result[i] = RESULT(top + (low - top) * wy);`;

const resize = (name: string): KernelDefinition =>
  kernel(name, ({ inputs, backend, attrs }) => {
    const images = inputs.images!;
    const [batch, height, width, channels] = images.shape as [number, number, number, number];
    const { size, alignCorners, halfPixelCenters } = attrs;
    const nearest = name === 'ResizeNearestNeighbor';
    const type = nearest ? backend.typeOf(images) : backend.typeOf(images) === 'f16' ? 'f16' : 'f32';
    const result = backend.empty([batch, size[0], size[1], channels], nearest ? images.dtype : 'float32', type);
    const count = sizeOf(result);
    const [ry, rx] = ratios([height, width], size, alignCorners);
    if (count > 0) {
      backend.run({
        kernel: name,
        key: `${!!alignCorners}${!!halfPixelCenters}`,
        code: () =>
          `alias RESULT = ${type};\n${flatMain(nearest ? NEAREST(halfPixelCenters, alignCorners) : BILINEAR(halfPixelCenters))}`,
        inputs: [{ name: 'images', of: images }],
        outputs: [{ name: 'result', of: result }],
        params: [count, channels, height, width, size[0], size[1], float(ry), float(rx)],
        groups: flatGroups(count),
        flops: count * 16,
      });
    }
    return result;
  });

/** Every pixel of the image collects the gradients of the pixels that were made from it. */
const resizeNearestGrad = kernel('ResizeNearestNeighborGrad', ({ inputs, backend, attrs }) => {
  const { images, dy } = inputs as { images: Info; dy: Info };
  const [, height, width, channels] = images.shape as [number, number, number, number];
  const [, newHeight, newWidth] = dy.shape as [number, number, number, number];
  const { alignCorners, halfPixelCenters } = attrs;
  const type = backend.typeOf(dy);
  const result = backend.empty(images.shape, 'float32', type);
  const [ry, rx] = ratios([height, width], [newHeight, newWidth], alignCorners);
  const source = (at: string, ratio: string, size: string) => {
    const place = `${ratio} * (f32(${at})${halfPixelCenters ? ' + 0.5' : ''})`;
    return `clamp(i32(floor(${place}${alignCorners ? ' + 0.5' : ''})), 0, ${size} - 1)`;
  };
  backend.run({
    kernel: 'ResizeNearestNeighborGrad',
    key: `${!!alignCorners}${!!halfPixelCenters}`,
    code: () =>
      flatMain(`  let c = i % ${param(1)}; let x = i32(i / ${param(1)} % ${param(3)});
  let y = i32(i / ${param(1)} / ${param(3)} % ${param(2)}); let n = i / ${param(1)} / ${param(3)} / ${param(2)};
  var sum = 0.0;
  let yFirst = u32(max(0.0, floor((f32(y) - 1.0) / ${floatParam(6)}) - 1.0));
  let xFirst = u32(max(0.0, floor((f32(x) - 1.0) / ${floatParam(7)}) - 1.0));
  for (var v = yFirst; v < ${param(4)}; v++) {
    let sy = ${source('v', floatParam(6), intParam(2))};
    if (sy > y) { break; }
    if (sy < y) { continue; }
    for (var u = xFirst; u < ${param(5)}; u++) {
      let sx = ${source('u', floatParam(7), intParam(3))};
      if (sx > x) { break; }
      if (sx == x) { sum += f32(dy[((n * ${param(4)} + v) * ${param(5)} + u) * ${param(1)} + c]); }
    }
  }
  result[i] = ${type}(sum);`),
    inputs: [{ name: 'dy', of: dy }],
    outputs: [{ name: 'result', of: result }],
    params: [sizeOf(images), channels, height, width, newHeight, newWidth, float(ry), float(rx)],
    groups: flatGroups(sizeOf(images)),
    flops: sizeOf(dy),
  });
  return result;
});

/** Kernels that choose numbers by index or place. */
export const indexing: KernelDefinition[] = [
  gather,
  oneHot,
  segmentSum,
  resize('ResizeNearestNeighbor'),
  resize('ResizeBilinear'),
  resizeNearestGrad,
];
