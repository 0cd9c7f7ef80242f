import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../../errors.js';
import type { Info, WebGpuBackend } from '../backend.js';
import { broadcastStrides, planWalk, walkCode, walkCount, walkKey, walkParams } from '../broadcast.js';
import { type ElementType, flatGroups, flatMain, intParam, typeOf } from '../wgsl.js';
import { type KernelDefinition, kernel, sizeOf } from './definition.js';
import { convert, fill } from './elementwise.js';

const { slice_util, backend_util, util } = tf;

/** Strides of a contiguous tensor, in numbers. */
export const stridesOf = (shape: readonly number[]): number[] =>
  util.computeStrides([...shape]).concat(shape.length > 0 ? 1 : []);

/** A part of a tensor as a grid: where its first number lies and how far each step along each axis leads. */
export interface Grid {
  offset: number;
  strides: number[];
}

const FIRST = 3;

/** Copies a grid of `x` to a grid of `result`, both of sizes `dims`. */
export function copy(backend: WebGpuBackend, x: Info, from: Grid, result: Info, to: Grid, dims: number[]): void {
  if (tf.util.sizeFromShape(dims) === 0) {
    return;
  }
  const walk = planWalk(dims, [from.strides, to.strides], [from.offset, to.offset]);
  // a repeated number is read as one and written four times
  const [readWidth, writeWidth] = walk.vector.map((vector) => (vector ? walk.width : 1)) as [1 | 4, 1 | 4];
  const narrow = walk.width === 4 && writeWidth === 1;
  const plan = narrow ? { ...walk, width: 1 as const } : walk;
  const [inWidth, outWidth] = narrow ? ([1, 1] as const) : ([readWidth, writeWidth] as const);
  const count = walkCount(plan);
  const stored = typeOf({ type: backend.typeOf(result), width: outWidth });
  backend.run({
    kernel: 'Copy',
    key: walkKey(plan),
    code: () =>
      flatMain(`${walkCode(plan, FIRST)}
  result[at1 + ${intParam(2)}] = ${stored}(in0[at0 + ${intParam(1)}]);`),
    inputs: [{ name: 'in0', of: x, width: inWidth }],
    outputs: [{ name: 'result', of: result, width: outWidth }],
    params: [count, from.offset / inWidth, to.offset / outWidth, ...walkParams(plan)],
    groups: flatGroups(count),
    flops: count * plan.width,
  });
}

/** A new contiguous tensor of the grid of `x`. */
export function gather(backend: WebGpuBackend, x: Info, from: Grid, shape: number[]): Info {
  const result = backend.empty(shape, x.dtype, backend.typeOf(x));
  copy(backend, x, from, result, { offset: 0, strides: stridesOf(shape) }, shape);
  return result;
}

/** The part of `x` of that size from `begin` on. */
export function slice(backend: WebGpuBackend, x: Info, begin: number[], size: number[], steps?: number[]): Info {
  if (!steps && size.every((length, i) => length === x.shape[i])) {
    return backend.share(x);
  }
  const own = stridesOf(x.shape);
  const offset = begin.reduce((sum, at, i) => sum + at * own[i]!, 0);
  return gather(backend, x, { offset, strides: own.map((stride, i) => stride * (steps?.[i] ?? 1)) }, size);
}

export function transpose(backend: WebGpuBackend, x: Info, perm: number[]): Info {
  const own = stridesOf(x.shape);
  return gather(
    backend,
    x,
    { offset: 0, strides: perm.map((axis) => own[axis]!) },
    perm.map((axis) => x.shape[axis]!),
  );
}

export function broadcastTo(backend: WebGpuBackend, x: Info, shape: number[]): Info {
  return gather(backend, x, { offset: 0, strides: broadcastStrides(x.shape, shape) }, shape);
}

function tile(backend: WebGpuBackend, x: Info, reps: number[]): Info {
  const own = stridesOf(x.shape);
  const dims = x.shape.flatMap((size, i) => [reps[i]!, size]);
  const strides = own.flatMap((stride) => [0, stride]);
  const result = gather(backend, x, { offset: 0, strides }, dims);
  return { ...result, shape: x.shape.map((size, i) => size * reps[i]!) };
}

function reverse(backend: WebGpuBackend, x: Info, axes: number[]): Info {
  const own = stridesOf(x.shape);
  const offset = axes.reduce((sum, axis) => sum + own[axis]! * (x.shape[axis]! - 1), 0);
  return gather(backend, x, { offset, strides: own.map((s, i) => (axes.includes(i) ? -s : s)) }, x.shape);
}

function pad(backend: WebGpuBackend, x: Info, paddings: [number, number][], value: number): Info {
  const shape = x.shape.map((size, i) => size + paddings[i]![0] + paddings[i]![1]);
  if (paddings.every(([before, after]) => before + after === 0)) {
    return backend.share(x);
  }
  const constant = fill(backend, [], value, x.dtype);
  const result = backend.empty(shape, x.dtype, backend.typeOf(x));
  const strides = stridesOf(shape);
  copy(backend, constant, { offset: 0, strides: shape.map(() => 0) }, result, { offset: 0, strides }, shape);
  backend.disposeInfo(constant);
  const offset = paddings.reduce((sum, [before], i) => sum + before * strides[i]!, 0);
  copy(backend, x, { offset: 0, strides: stridesOf(x.shape) }, result, { offset, strides }, x.shape);
  return result;
}

/** Numbers of MirrorPad by gathering along each padded axis. */
function mirrorPad(backend: WebGpuBackend, x: Info, paddings: [number, number][], mode: string): Info {
  const edge = mode === 'reflect' ? 1 : 0;
  const shape = x.shape.map((size, i) => size + paddings[i]![0] + paddings[i]![1]);
  const result = backend.empty(shape, x.dtype, backend.typeOf(x));
  const [own, strides] = [stridesOf(x.shape), stridesOf(shape)];
  // along each axis three stretches: the mirrored start, the middle, the mirrored end
  const stretches = x.shape.map((size, i) => {
    const [before, after] = paddings[i]!;
    return [
      { from: before - 1 + edge, step: -1, to: 0, size: before },
      { from: 0, step: 1, to: before, size },
      { from: size - 1 - edge, step: -1, to: before + size, size: after },
    ].filter((stretch) => stretch.size > 0);
  });
  const visit = (axis: number, from: Grid, to: Grid, dims: number[]): void => {
    if (axis === shape.length) {
      copy(backend, x, from, result, to, dims);
      return;
    }
    for (const stretch of stretches[axis]!) {
      visit(
        axis + 1,
        { offset: from.offset + stretch.from * own[axis]!, strides: [...from.strides, own[axis]! * stretch.step] },
        { offset: to.offset + stretch.to * strides[axis]!, strides: [...to.strides, strides[axis]!] },
        [...dims, stretch.size],
      );
    }
  };
  visit(0, { offset: 0, strides: [] }, { offset: 0, strides: [] }, []);
  return result;
}

/** The type that holds the numbers of all. */
function commonType(backend: WebGpuBackend, given: Info[]): [tf.DataType, ElementType] {
  const types = new Set(given.map((x) => backend.typeOf(x)));
  const [first] = types;
  if (types.size === 1) {
    return [given.every(({ dtype }) => dtype === given[0]!.dtype) ? given[0]!.dtype : 'int32', first!];
  }
  return ['float32', 'f32'];
}

function concat(backend: WebGpuBackend, given: Info[], axis: number): Info {
  const shape = backend_util.computeOutShape(
    given.map((x) => x.shape),
    axis,
  );
  const [dtype, type] = commonType(backend, given);
  if (given.length === 1) {
    return convert(backend, given[0]!, type, dtype);
  }
  const result = backend.empty(shape, dtype, type);
  const strides = stridesOf(shape);
  let at = 0;
  for (const x of given) {
    const to = { offset: at * strides[axis]!, strides };
    copy(backend, x, { offset: 0, strides: stridesOf(x.shape) }, result, to, x.shape);
    at += x.shape[axis]!;
  }
  return result;
}

/** The part of x from `begin` on along one axis. */
function along(backend: WebGpuBackend, x: Info, axis: number, begin: number, length: number): Info {
  const start = x.shape.map((_, i) => (i === axis ? begin : 0));
  const size = x.shape.map((dim, i) => (i === axis ? length : dim));
  return slice(backend, x, start, size);
}

const joining: KernelDefinition[] = [
  kernel('Concat', ({ inputs, backend, attrs }) => {
    const given = Object.values(inputs);
    const axis = util.parseAxisParam(attrs.axis, given[0]!.shape)[0]!;
    const shapes = given.map(({ shape }) => shape);
    backend_util.assertParamsConsistent(shapes, axis);
    const filled = given.filter((x) => sizeOf(x) > 0);
    if (filled.length === 0) {
      return backend.makeTensorInfo(backend_util.computeOutShape(shapes, axis), given[0]!.dtype, null);
    }
    return concat(backend, filled, axis);
  }),
  kernel('Pack', ({ inputs, backend, attrs }) => {
    const given = Object.values(inputs);
    for (const { shape, dtype } of given) {
      util.assertShapesMatch(given[0]!.shape, shape, 'All tensors passed to stack must have matching shapes');
      util.assert(dtype === given[0]!.dtype, () => 'All tensors passed to stack must have matching dtypes');
    }
    const rank = given[0]!.shape.length;
    const axis = attrs.axis < 0 ? attrs.axis + rank + 1 : attrs.axis;
    const wide = given.map((x) => ({ ...x, shape: [...x.shape.slice(0, axis), 1, ...x.shape.slice(axis)] }));
    return given.length === 1 ? backend.share(given[0]!, wide[0]!.shape) : concat(backend, wide, axis);
  }),
];

const slicing: KernelDefinition[] = [
  kernel('Slice', ({ inputs, backend, attrs }) => {
    const [begin, size] = slice_util.parseSliceParams(inputs.x as tf.Tensor, attrs.begin, attrs.size);
    slice_util.assertParamsValid(inputs.x!, begin, size);
    return slice(backend, inputs.x!, begin, size);
  }),
  kernel('StridedSlice', ({ inputs, backend, attrs }) => {
    const x = inputs.x!;
    const { begin, end, strides, beginMask, endMask, ellipsisMask, newAxisMask, shrinkAxisMask } = attrs;
    const masks = [beginMask, endMask, ellipsisMask, newAxisMask, shrinkAxisMask] as const;
    const info = slice_util.sliceInfo(x.shape, begin, end, strides, ...masks);
    if (info.isIdentity) {
      return backend.share(x, info.finalShape);
    }
    const size = slice_util.computeOutShape(info.begin, info.end, info.strides);
    return { ...slice(backend, x, info.begin, size, info.strides), shape: info.finalShape };
  }),
  kernel('SplitV', ({ inputs, backend, attrs }) => {
    const x = inputs.x!;
    const axis = util.parseAxisParam(attrs.axis, x.shape)[0]!;
    let begin = 0;
    return backend_util.prepareSplitSize(x as tf.Tensor, attrs.numOrSizeSplits, axis).map((length) => {
      begin += length;
      return along(backend, x, axis, begin - length, length);
    });
  }),
  kernel('Unpack', ({ inputs, backend, attrs }) => {
    const x = inputs.value!;
    const axis = attrs.axis < 0 ? attrs.axis + x.shape.length : attrs.axis;
    const shape = x.shape.filter((_, i) => i !== axis);
    return Array.from({ length: x.shape[axis]! }, (_, i) => ({ ...along(backend, x, axis, i, 1), shape }));
  }),
];

const layout: KernelDefinition[] = [
  kernel('Transpose', ({ inputs, backend, attrs }) => transpose(backend, inputs.x!, attrs.perm)),
  kernel('PadV2', ({ inputs, backend, attrs }) => pad(backend, inputs.x!, attrs.paddings, attrs.constantValue)),
  kernel('MirrorPad', ({ inputs, backend, attrs }) => mirrorPad(backend, inputs.x!, attrs.paddings, attrs.mode)),
  kernel('Tile', ({ inputs, backend, attrs }) => tile(backend, inputs.x!, attrs.reps)),
  kernel('BroadcastTo', ({ inputs, backend, attrs }) => broadcastTo(backend, inputs.x!, attrs.shape)),
  kernel('Reverse', ({ inputs, backend, attrs }) => {
    const x = inputs.x!;
    return x.shape.length === 0 ? backend.share(x) : reverse(backend, x, util.parseAxisParam(attrs.dims, x.shape));
  }),
];

/** Kernels that share the data of their input, whatever its dtype. */
const views: KernelDefinition[] = [
  { name: 'Identity', run: ({ inputs, backend }) => backend.share(inputs.x!) },
  {
    name: 'Reshape',
    run: ({ inputs, backend, attrs }) => {
      const x = inputs.x!;
      const shape = util.inferFromImplicitShape(attrs.shape, sizeOf(x));
      if (util.sizeFromShape(shape) !== sizeOf(x)) {
        throw new InvalidArgumentError(`[Reshape] shape [${shape}] has another number of elements than [${x.shape}]`);
      }
      return backend.share(x, shape);
    },
  },
  {
    name: 'ExpandDims',
    run: ({ inputs, backend, attrs }) => {
      const { shape } = inputs.input!;
      const axis = attrs.dim < 0 ? attrs.dim + shape.length + 1 : attrs.dim;
      if (!(axis >= 0 && axis <= shape.length)) {
        const range = `[${-(shape.length + 1)}, ${shape.length}]`;
        throw new InvalidArgumentError(`Axis must be in the interval ${range}, got ${attrs.dim}`);
      }
      return backend.share(inputs.input!, [...shape.slice(0, axis), 1, ...shape.slice(axis)]);
    },
  },
];

const partOf = (backend: WebGpuBackend, input: Info, part: 'real' | 'imag'): Info | undefined => {
  const { complex } = backend.data(input.dataId);
  return complex ? backend.share(complex[part], input.shape) : undefined;
};

/** complex64 tensors are pairs of float32 tensors; only what tfjs-core itself needs of them is here. */
const complex: KernelDefinition[] = [
  {
    name: 'Complex',
    run: ({ inputs, backend }) => {
      const { real, imag } = inputs;
      const result = backend.makeTensorInfo(real!.shape, 'complex64', null);
      backend.data(result.dataId).complex = { real: backend.share(real!), imag: backend.share(imag!) };
      return result;
    },
  },
  {
    name: 'Real',
    run: ({ inputs, backend }) => partOf(backend, inputs.input!, 'real') ?? backend.share(inputs.input!),
  },
  {
    name: 'Imag',
    run: ({ inputs, backend }) =>
      partOf(backend, inputs.input!, 'imag') ?? fill(backend, inputs.input!.shape, 0, 'float32'),
  },
];

/** Kernels that move numbers to other places, or only look at them in another shape. */
export const movement: KernelDefinition[] = [...views, ...slicing, ...joining, ...layout, ...complex];
