import * as tf from '@tensorflow/tfjs-core';
import { BackendError } from '../../../errors.js';
import type { Info, WebGpuBackend } from '../backend.js';
import { type ElementType, flatGroups, flatMain, intParam, param, rowMain, workgroupReduce } from '../wgsl.js';
import { axesOf, type KernelArguments, type KernelDefinition, kernel, sizeOf } from './definition.js';
import { convert } from './elementwise.js';
import { stridesOf, transpose } from './movement.js';

/** x as [rows, columns] with the reduced axes last. */
function asRows(backend: WebGpuBackend, x: Info, axes: number[]): { rows: Info; shape: number[]; count: number } {
  const kept = x.shape.map((_, i) => i).filter((axis) => !axes.includes(axis));
  const shape = kept.map((axis) => x.shape[axis]!);
  const perm = [...kept, ...axes];
  const inPlace = perm.every((axis, i) => axis === i);
  const moved = inPlace ? backend.share(x) : transpose(backend, x, perm);
  const count = tf.util.sizeFromShape(shape);
  return { rows: { ...moved, shape: [count, count === 0 ? 0 : sizeOf(x) / count] }, shape, count };
}

interface Reduction {
  start: string;
  /** Combines `acc` and `v`. */
  step: string;
  finish?: string;
}

const FLOAT: Record<string, Reduction> = {
  Sum: { start: '0.0', step: 'acc + v' },
  Mean: { start: '0.0', step: 'acc + v', finish: 'acc / f32(columns)' },
  Prod: { start: '1.0', step: 'acc * v' },
  Max: { start: 'f32(x[first])', step: 'select(max(acc, v), acc + v, isNan(acc) || isNan(v))' },
  Min: { start: 'f32(x[first])', step: 'select(min(acc, v), acc + v, isNan(acc) || isNan(v))' },
};

const INTEGER: Record<string, Reduction> = {
  Sum: { start: '0', step: 'acc + v' },
  Prod: { start: '1', step: 'acc * v' },
  Max: { start: 'x[first]', step: 'max(acc, v)' },
  Min: { start: 'x[first]', step: 'min(acc, v)' },
  All: { start: '1', step: 'min(acc, v)' },
  Any: { start: '0', step: 'max(acc, v)' },
};

const GROUP = 64;
/** Rows shorter than this are reduced by one invocation each. */
const SHORT = 32;

/** Reduces rows: by one invocation each when they are short, else by a workgroup each, in a fixed order. */
function reduceCode({ start, step, finish = 'acc' }: Reduction, compute: string, short: boolean): string {
  const f = `fn combine(acc: ${compute}, v: ${compute}) -> ${compute} { return ${step}; }`;
  if (short) {
    return `${f}
${flatMain(`  let columns = ${param(1)};
  let first = i * columns;
  var acc = ${start};
  for (var j = 0u; j < columns; j++) { acc = combine(acc, ${compute}(x[first + j])); }
  result[i] = RESULT(${finish});`)}`;
  }
  return `${f}
var<workgroup> parts: array<${compute}, ${GROUP}>;
${rowMain(
  GROUP,
  `  let columns = ${param(1)};
  let first = row * columns;
  var acc = ${start};
  for (var j = lane; j < columns; j += ${GROUP}u) { acc = combine(acc, ${compute}(x[first + j])); }
  parts[lane] = acc;
  workgroupBarrier();
  for (var half = ${GROUP / 2}u; half > 0u; half = half / 2u) {
    if (lane < half) { parts[lane] = combine(parts[lane], parts[lane + half]); }
    workgroupBarrier();
  }
  if (lane == 0u) { acc = parts[0]; result[row] = RESULT(${finish}); }`,
)}`;
}

/** Reduces the axes; an invocation without a number of its own starts with the row's first where the start counts. */
function reduce(name: string, { inputs, backend, attrs }: KernelArguments): Info {
  const axes = axesOf(attrs.reductionIndices ?? attrs.axis, inputs.x!.shape);
  const given = name === 'Mean' && backend.typeOf(inputs.x!) === 'i32' ? 'f32' : backend.typeOf(inputs.x!);
  const x = convert(backend, inputs.x!, given, given === 'i32' ? inputs.x!.dtype : 'float32');
  const { rows, shape, count } = asRows(backend, x, axes);
  const compute = given === 'i32' ? 'i32' : 'f32';
  const dtype: tf.DataType = name === 'All' || name === 'Any' ? 'bool' : compute === 'i32' ? 'int32' : 'float32';
  const result = backend.empty(shape, dtype, given);
  const columns = rows.shape[1]!;
  if (count > 0) {
    const short = columns < SHORT;
    const formula = (compute === 'i32' ? INTEGER : FLOAT)[name]!;
    backend.run({
      kernel: name,
      key: `${short}`,
      code: () => `alias RESULT = ${given};\n${reduceCode(formula, compute, short)}`,
      inputs: [{ name: 'x', of: rows }],
      outputs: [{ name: 'result', of: result }],
      params: [count, columns],
      groups: short ? flatGroups(count) : flatGroups(count, 1),
      flops: count * columns,
    });
  }
  backend.disposeInfo(rows);
  backend.disposeInfo(x);
  const kept = attrs.keepDims ? tf.backend_util.expandShapeToKeepDim(shape, axes) : shape;
  return { ...result, shape: kept };
}

function extremum(name: string, compare: string): KernelDefinition {
  return kernel(name, ({ inputs, backend, attrs }) => {
    const axis = axesOf(attrs.axis, inputs.x!.shape);
    const { rows, shape, count } = asRows(backend, inputs.x!, axis.slice(0, 1));
    const compute = backend.typeOf(rows) === 'i32' ? 'i32' : 'f32';
    const result = backend.empty(shape, 'int32');
    backend.run({
      kernel: name,
      key: '',
      code: () =>
        flatMain(`  let columns = ${param(1)};
  let first = i * columns;
  var best = ${compute}(x[first]); var at = 0u;
  for (var j = 1u; j < columns; j++) {
    let v = ${compute}(x[first + j]);
    if (v ${compare} best${compute === 'f32' ? ' || (isNan(best) && !isNan(v))' : ''}) { best = v; at = j; }
  }
  result[i] = i32(at);`),
      inputs: [{ name: 'x', of: rows }],
      outputs: [{ name: 'result', of: result }],
      params: [count, rows.shape[1]!],
      groups: flatGroups(count),
      flops: sizeOf(rows),
    });
    backend.disposeInfo(rows);
    return result;
  });
}

/** softmax or its logarithm over the last axis, one workgroup per row; sums in float32. */
function softmaxCode(type: ElementType, logarithm: boolean, subgroups: boolean): string {
  const value = logarithm
    ? 'f32(x[at]) - top - log(total)'
    : 'select(exp(f32(x[at]) - top) / total, total, isNan(total))';
  return `${workgroupReduce('largest', GROUP, 'max', subgroups)}
${workgroupReduce('sum', GROUP, 'add', subgroups)}
${rowMain(
  GROUP,
  `  let columns = ${param(1)};
  let first = row * columns;
  var top = f32(x[first]);
  for (var j = lane; j < columns; j += ${GROUP}u) { top = max(top, f32(x[first + j])); }
  top = largest(top, lane);
  var total = 0.0;
  for (var j = lane; j < columns; j += ${GROUP}u) {
    let s = f32(x[first + j]);
    total += select(exp(s - top), s, isNan(s));
  }
  total = sum(total, lane);
  for (var j = lane; j < columns; j += ${GROUP}u) { let at = first + j; result[at] = ${type}(${value}); }`,
  subgroups,
)}`;
}

function softmaxLike(name: string, attribute: 'dim' | 'axis'): KernelDefinition {
  return kernel(name, ({ inputs, backend, attrs }) => {
    const given = inputs.logits!;
    const rank = given.shape.length;
    const axis = attrs[attribute] ?? -1;
    if (axis !== -1 && axis !== rank - 1) {
      throw new BackendError(`[${name}] the backend webgpu works along the last axis, got ${axis} of ${rank} axes`);
    }
    const type = backend.typeOf(given) === 'i32' ? 'f32' : backend.typeOf(given);
    const x = convert(backend, given, type, 'float32');
    const result = backend.empty(given.shape, 'float32', type);
    const columns = given.shape.at(-1) ?? 1;
    const { hasSubgroups } = backend.description;
    if (sizeOf(x) > 0) {
      backend.run({
        kernel: name,
        key: '',
        code: () => softmaxCode(type, name === 'LogSoftmax', hasSubgroups),
        inputs: [{ name: 'x', of: x }],
        outputs: [{ name: 'result', of: result }],
        params: [sizeOf(x) / columns, columns],
        groups: flatGroups(sizeOf(x) / columns, 1),
        flops: sizeOf(x) * 4,
      });
    }
    backend.disposeInfo(x);
    return result;
  });
}

function cumulative(name: string, start: string, step: string): KernelDefinition {
  return kernel(name, ({ inputs, backend, attrs }) => {
    const x = inputs.x!;
    const axis = tf.util.parseAxisParam(attrs.axis, x.shape)[0]!;
    const result = backend.empty(x.shape, x.dtype, backend.typeOf(x));
    const compute = backend.typeOf(x) === 'i32' ? 'i32' : 'f32';
    const [length, stride] = [x.shape[axis]!, stridesOf(x.shape)[axis]!];
    const count = sizeOf(x) / length;
    backend.run({
      kernel: name,
      key: `${!!attrs.exclusive}${!!attrs.reverse}`,
      code: () => {
        const before = `result[at] = ${backend.typeOf(x)}(acc);`;
        return flatMain(`  let base = i32(i / ${param(2)} * ${param(2)} * ${param(1)} + i % ${param(2)});
  var acc = ${compute}(${start});
  for (var j = 0; j < ${intParam(1)}; j++) {
    let at = base + ${attrs.reverse ? `(${intParam(1)} - 1 - j)` : 'j'} * ${intParam(2)};
    let v = ${compute}(x[at]);
    ${attrs.exclusive ? before : ''}
    acc = ${step};
    ${attrs.exclusive ? '' : before}
  }`);
      },
      inputs: [{ name: 'x', of: x }],
      outputs: [{ name: 'result', of: result }],
      params: [count, length, stride],
      groups: flatGroups(count),
      flops: sizeOf(x),
    });
    return result;
  });
}

export const reduction: KernelDefinition[] = [
  ...['Sum', 'Prod', 'Mean', 'Max', 'Min', 'All', 'Any'].map((name) => kernel(name, (args) => reduce(name, args))),
  extremum('ArgMax', '>'),
  extremum('ArgMin', '<'),
  softmaxLike('Softmax', 'dim'),
  softmaxLike('LogSoftmax', 'axis'),
  cumulative('Cumsum', '0', 'acc + v'),
  cumulative('Cumprod', '1', 'acc * v'),
];
