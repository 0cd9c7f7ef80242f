import * as tf from '@tensorflow/tfjs-core';
import { BackendError, InvalidArgumentError } from '../../../errors.js';
import type { Info, Operand, WebGpuBackend } from '../backend.js';
import { chooseTile, loadColumns, OWN_PARAMS, productCode, productParts, SIZE, storeRows } from '../gemm.js';
import { intParam, param } from '../wgsl.js';
import { applyEpilogue } from './activation.js';
import { type KernelArguments, type KernelDefinition, kernel, promote, sizeOf } from './definition.js';

/** A convolution of an image [N,H,W,C] to [N,outHeight,outWidth,outChannels]. */
interface Geometry {
  batch: number;
  height: number;
  width: number;
  channels: number;
  outHeight: number;
  outWidth: number;
  outChannels: number;
  filter: [number, number];
  strides: [number, number];
  dilations: [number, number];
  /** Zeros above and on the left; those below and on the right follow from the sizes. */
  pad: [number, number];
  /** The image is first enlarged by that factor by nearest neighbour. */
  upsample: number;
}

const P = {
  height: intParam(OWN_PARAMS),
  width: intParam(OWN_PARAMS + 1),
  channels: param(OWN_PARAMS + 2),
  outHeight: param(OWN_PARAMS + 3),
  outWidth: param(OWN_PARAMS + 4),
  outChannels: param(OWN_PARAMS + 5),
  filterWidth: param(OWN_PARAMS + 6),
  stride: [intParam(OWN_PARAMS + 7), intParam(OWN_PARAMS + 8)],
  dilation: [intParam(OWN_PARAMS + 9), intParam(OWN_PARAMS + 10)],
  pad: [intParam(OWN_PARAMS + 11), intParam(OWN_PARAMS + 12)],
  upsample: intParam(OWN_PARAMS + 13),
} as const;

const geometryParams = (g: Geometry): number[] => [
  ...[g.height, g.width, g.channels, g.outHeight, g.outWidth, g.outChannels, g.filter[1]],
  ...[...g.strides, ...g.dilations, ...g.pad, g.upsample],
];

/** fn pixelAt: where the pixel under a position of the filter lies, -1 for one of the zeros around the image. */
const PIXEL_AT = `fn pixelAt(pixel: u32, tap: u32) -> i32 {
  let size = ${P.outHeight} * ${P.outWidth};
  let inside = pixel % size;
  let y = i32(inside / ${P.outWidth}) * ${P.stride[0]} - ${P.pad[0]} + i32(tap / ${P.filterWidth}) * ${P.dilation[0]};
  let x = i32(inside % ${P.outWidth}) * ${P.stride[1]} - ${P.pad[1]} + i32(tap % ${P.filterWidth}) * ${P.dilation[1]};
  if (y < 0 || x < 0 || y >= ${P.height} * ${P.upsample} || x >= ${P.width} * ${P.upsample}) { return -1; }
  return (i32(pixel / size) * ${P.height} + y / ${P.upsample}) * ${P.width} + x / ${P.upsample};
}`;

/** fn sourceAt: the reverse, where the result's pixel lies that a position of the filter brings to an image's pixel. */
const SOURCE_AT = `fn sourceAt(pixel: u32, tap: u32) -> i32 {
  let size = u32(${P.height} * ${P.width});
  let inside = i32(pixel % size);
  let y = inside / ${P.width} + ${P.pad[0]} - i32(tap / ${P.filterWidth}) * ${P.dilation[0]};
  let x = inside % ${P.width} + ${P.pad[1]} - i32(tap % ${P.filterWidth}) * ${P.dilation[1]};
  if (y < 0 || x < 0 || y % ${P.stride[0]} != 0 || x % ${P.stride[1]} != 0) { return -1; }
  let row = y / ${P.stride[0]}; let column = x / ${P.stride[1]};
  if (row >= i32(${P.outHeight}) || column >= i32(${P.outWidth})) { return -1; }
  return (i32(pixel / size) * i32(${P.outHeight}) + row) * i32(${P.outWidth}) + column;
}`;

/** fn loadA of an image seen as a matrix [pixels of the result, positions of the filter x channels]. */
function loadPixels(width: 1 | 4, place: string, channels: string, name: string): string {
  const at = `${place}(row, K / ${channels})`;
  const one = `fn numberAt(row: u32, k: u32) -> TILE {
  let pixel = ${at.replace('K', 'k')};
  if (pixel < 0) { return TILE(0); }
  return TILE(${name}[u32(pixel) * ${channels} + k % ${channels}]);
}`;
  const body =
    width === 4
      ? `let pixel = ${at.replace('K', 'k')};
  if (pixel >= 0) { v = vec4<TILE>(${name}[(u32(pixel) * ${channels} + k % ${channels}) / 4u]); }`
      : `for (var i = 0u; i < min(4u, ${SIZE.depth} - k); i++) { v[i] = numberAt(row, k + i); }`;
  return `${place === 'pixelAt' ? PIXEL_AT : SOURCE_AT}
${width === 1 ? one : ''}
fn loadA(batch: u32, row: u32, k: u32) -> vec4<TILE> {
  var v = vec4<TILE>(0);
  if (row >= ${SIZE.rows} || k >= ${SIZE.depth}) { return v; }
  ${body}
  return v;
}`;
}

interface Extras {
  bias?: Info;
  residual?: Info;
  timeEmbedding?: Info;
  activation?: string;
}

const widthOf = (channels: number): 1 | 4 => (channels % 4 === 0 ? 4 : 1);

interface ConvolutionProduct {
  kernel: string;
  key: string;
  size: [rows: number, columns: number, depth: number];
  geometry: Geometry;
  inputs: Operand[];
  result: Info;
  /** Of the result. */
  width: 1 | 4;
  loadA: () => string;
  loadB: () => string;
  store: () => string;
}

function runProduct(backend: WebGpuBackend, p: ConvolutionProduct): void {
  const [rows, columns, depth] = p.size;
  if (rows * columns === 0) {
    return;
  }
  const tile = chooseTile(rows, columns, 1);
  const type = p.inputs.slice(0, 2).every(({ of }) => backend.typeOf(of) === 'f16') ? 'f16' : 'f32';
  for (const { firstRow, groups, flops } of productParts(rows, columns, depth, 1, tile)) {
    backend.run({
      kernel: p.kernel,
      key: `${tile.rows}x${tile.columns}${type}${p.key}`,
      code: () => productCode({ tile, type, loadA: p.loadA(), loadB: p.loadB(), store: p.store() }),
      inputs: p.inputs,
      outputs: [{ name: 'result', of: p.result, width: p.width }],
      params: [rows, columns, depth, firstRow, ...geometryParams(p.geometry)],
      groups,
      flops,
    });
  }
}

/** The convolution as a product of the image, seen as a matrix, with the filter. */
function convolve(backend: WebGpuBackend, name: string, x: Info, filter: Info, g: Geometry, extras: Extras = {}): Info {
  const { bias, residual, timeEmbedding, activation = 'linear' } = extras;
  const type = promote(backend, x, filter);
  const result = backend.empty([g.batch, g.outHeight, g.outWidth, g.outChannels], 'float32', type);
  const [xWidth, width] = [widthOf(g.channels), widthOf(g.outChannels)];
  const optional = Object.entries({ bias, residual, timeEmbedding }).filter(([, of]) => of) as [string, Info][];
  const pixels = `(${P.outHeight} * ${P.outWidth})`;
  runProduct(backend, {
    kernel: name,
    key: activation,
    size: [g.batch * g.outHeight * g.outWidth, g.outChannels, g.filter[0] * g.filter[1] * g.channels],
    geometry: g,
    inputs: [
      { name: 'x', of: x, width: xWidth },
      { name: 'weight', of: filter, width },
      ...optional.map(([key, of]) => ({ name: key, of, width })),
    ],
    result,
    width,
    loadA: () => loadPixels(xWidth, 'pixelAt', P.channels, 'x'),
    loadB: () => loadColumns(width, SIZE.columns),
    store: () =>
      storeRows({
        width,
        type,
        bias: !!bias,
        residual: !!residual,
        timeEmbedding: timeEmbedding && pixels,
        activation,
      }),
  });
  return result;
}

/** Gradient of the image: every pixel collects what the filter brought from it. */
function inputGradient(backend: WebGpuBackend, dy: Info, filter: Info, g: Geometry): Info {
  const type = promote(backend, dy, filter);
  const result = backend.empty([g.batch, g.height, g.width, g.channels], 'float32', type);
  const [dyWidth, width] = [widthOf(g.outChannels), widthOf(g.channels)];
  // the filter [tap, channels, outChannels] as a matrix [tap x outChannels, channels]
  const loadB = `fn loadB(batch: u32, k: u32, column: u32) -> vec4<TILE> {
  var v = vec4<TILE>(0);
  if (k >= ${SIZE.depth}) { return v; }
  let tap = k / ${P.outChannels}; let channel = k % ${P.outChannels};
  for (var i = 0u; i < 4u; i++) {
    if (column + i < ${SIZE.columns}) {
      v[i] = TILE(weight[(tap * ${P.channels} + column + i) * ${P.outChannels} + channel]);
    }
  }
  return v;
}`;
  runProduct(backend, {
    kernel: 'Conv2DBackpropInput',
    key: '',
    size: [g.batch * g.height * g.width, g.channels, g.filter[0] * g.filter[1] * g.outChannels],
    geometry: g,
    inputs: [
      { name: 'dy', of: dy, width: dyWidth },
      { name: 'weight', of: filter },
    ],
    result,
    width,
    loadA: () => loadPixels(dyWidth, 'sourceAt', P.outChannels, 'dy'),
    loadB: () => loadB,
    store: () => storeRows({ width, type }),
  });
  return result;
}

/** Gradient of the filter: the image's matrix transposed times dy. */
function filterGradient(backend: WebGpuBackend, x: Info, dy: Info, g: Geometry): Info {
  const type = promote(backend, x, dy);
  const result = backend.empty([...g.filter, g.channels, g.outChannels], 'float32', type);
  const width = widthOf(g.outChannels);
  const loadA = `${PIXEL_AT}
fn loadA(batch: u32, row: u32, k: u32) -> vec4<TILE> {
  var v = vec4<TILE>(0);
  if (row >= ${SIZE.rows}) { return v; }
  for (var i = 0u; i < 4u; i++) {
    if (k + i < ${SIZE.depth}) {
      let pixel = pixelAt(k + i, row / ${P.channels});
      if (pixel >= 0) { v[i] = TILE(x[u32(pixel) * ${P.channels} + row % ${P.channels}]); }
    }
  }
  return v;
}`;
  runProduct(backend, {
    kernel: 'Conv2DBackpropFilter',
    key: '',
    size: [g.filter[0] * g.filter[1] * g.channels, g.outChannels, g.batch * g.outHeight * g.outWidth],
    geometry: g,
    inputs: [
      { name: 'x', of: x },
      { name: 'dy', of: dy, width },
    ],
    result,
    width,
    loadA: () => loadA,
    loadB: () => loadColumns(width, SIZE.columns, 'dy'),
    store: () => storeRows({ width, type }),
  });
  return result;
}

const pairOf = (value: number | [number, number]): [number, number] =>
  typeof value === 'number' ? [value, value] : value;

/** The geometry of one of tfjs-core's convolutions. */
function geometryOf(name: string, xShape: number[], filterShape: number[], attrs: KernelArguments['attrs']): Geometry {
  const format = tf.backend_util.convertConv2DDataFormat(attrs.dataFormat ?? 'NHWC');
  const info = tf.backend_util.computeConv2DInfo(
    xShape as [number, number, number, number],
    filterShape as [number, number, number, number],
    attrs.strides,
    attrs.dilations ?? 1,
    attrs.pad,
    attrs.dimRoundingMode,
    false,
    format,
  );
  const { top, left } = info.padInfo;
  if (format !== 'channelsLast' || !Number.isInteger(top) || !Number.isInteger(left)) {
    throw new BackendError(
      `[${name}] the backend webgpu convolves [N,H,W,C] with whole padding, got ${format}, ${top}`,
    );
  }
  return {
    batch: info.batchSize,
    height: info.inHeight,
    width: info.inWidth,
    channels: info.inChannels,
    outHeight: info.outHeight,
    outWidth: info.outWidth,
    outChannels: info.outChannels,
    filter: [info.filterHeight, info.filterWidth],
    strides: [info.strideHeight, info.strideWidth],
    dilations: [info.dilationHeight, info.dilationWidth],
    pad: [top, left],
    upsample: 1,
  };
}

/** The geometry of src/ops/conv2d.ts. */
function fusedGeometry(x: Info, filter: Info, attrs: KernelArguments['attrs']): Geometry {
  const [batch, height, width, channels] = x.shape as [number, number, number, number];
  const [filterHeight, filterWidth, , outChannels] = filter.shape as [number, number, number, number];
  const strides = pairOf(attrs.strides);
  const { pad, upsample = 1 } = attrs as { pad: [[number, number], [number, number]]; upsample: number };
  const length = (size: number, [before, after]: [number, number], filterSize: number, stride: number) =>
    Math.floor((size * upsample + before + after - filterSize) / stride) + 1;
  return {
    batch,
    height,
    width,
    channels,
    outHeight: length(height, pad[0], filterHeight, strides[0]),
    outWidth: length(width, pad[1], filterWidth, strides[1]),
    outChannels,
    filter: [filterHeight, filterWidth],
    strides,
    dilations: [1, 1],
    pad: [pad[0][0], pad[1][0]],
    upsample,
  };
}

/** The gradient of a convolution's result has the result's shape. */
function checkGradient(name: string, dy: Info, g: Geometry): void {
  const expected = [g.batch, g.outHeight, g.outWidth, g.outChannels];
  if (!tf.util.arraysEqual(dy.shape, expected)) {
    throw new InvalidArgumentError(`[${name}] dy expects shape [${expected}], got [${dy.shape}]`);
  }
}

const requireFloat = (name: string, ...operands: Info[]) => {
  const other = operands.find(({ dtype }) => dtype !== 'float32');
  if (other) {
    throw new BackendError(`[${name}] the backend webgpu convolves float32, got ${other.dtype}`);
  }
};

export const convolution: KernelDefinition[] = [
  kernel('Conv2dFused', ({ inputs, backend, attrs }) => {
    const { x, filter, bias, residual, timeEmbedding } = inputs;
    const extras = { bias, residual, timeEmbedding, activation: attrs.activation };
    return convolve(backend, 'Conv2dFused', x!, filter!, fusedGeometry(x!, filter!, attrs), extras);
  }),
  kernel('Conv2D', ({ inputs, backend, attrs }) => {
    const { x, filter } = inputs;
    requireFloat('Conv2D', x!, filter!);
    return convolve(backend, 'Conv2D', x!, filter!, geometryOf('Conv2D', x!.shape, filter!.shape, attrs));
  }),
  kernel('FusedConv2D', ({ inputs, backend, attrs }) => {
    const { x, filter, bias, preluActivationWeights } = inputs;
    requireFloat('FusedConv2D', x!, filter!);
    const inside = bias && sizeOf(bias) === filter!.shape[3];
    const geometry = geometryOf('FusedConv2D', x!.shape, filter!.shape, attrs);
    const sums = convolve(backend, 'FusedConv2D', x!, filter!, geometry, inside ? { bias } : {});
    const rest = inside ? undefined : bias;
    return applyEpilogue(backend, sums, rest, attrs.activation, preluActivationWeights, attrs.leakyreluAlpha);
  }),
  kernel('Conv2DBackpropInput', ({ inputs, backend, attrs }) => {
    const { dy, filter } = inputs;
    requireFloat('Conv2DBackpropInput', dy!, filter!);
    const geometry = geometryOf('Conv2DBackpropInput', attrs.inputShape, filter!.shape, attrs);
    checkGradient('Conv2DBackpropInput', dy!, geometry);
    return inputGradient(backend, dy!, filter!, geometry);
  }),
  kernel('Conv2DBackpropFilter', ({ inputs, backend, attrs }) => {
    const { x, dy } = inputs;
    requireFloat('Conv2DBackpropFilter', x!, dy!);
    const geometry = geometryOf('Conv2DBackpropFilter', x!.shape, attrs.filterShape, attrs);
    checkGradient('Conv2DBackpropFilter', dy!, geometry);
    return filterGradient(backend, x!, dy!, geometry);
  }),
];
