import * as tf from '@tensorflow/tfjs-core';
import { BackendError, InvalidArgumentError } from '../../../errors.js';
import { float, type Info, type Operand, type WebGpuBackend } from '../backend.js';
import { broadcastStrides, planWalk, type Walk, walkCode, walkCount, walkKey, walkParams } from '../broadcast.js';
import { BINARY, BINARY_INT, COMPARISONS, ROUNDS_TO_INT, TESTS, UNARY, UNARY_INT, withFunctions } from '../math.js';
import { type ElementType, flatGroups, flatMain, floatParam, typeOf } from '../wgsl.js';
import { type KernelDefinition, kernel, promote } from './definition.js';

/** A function of numbers that stand at the same place of broadcast operands. */
export interface Pointwise {
  kernel: string;
  /** WGSL expression of a, b, c: the operands' numbers of the type `compute`. */
  expression: string;
  compute: 'f32' | 'i32';
  operands: Info[];
  shape: number[];
  dtype: tf.DataType;
  type: ElementType;
  /** The expression's p and q. */
  constants?: number[];
}

const NAMES = ['a', 'b', 'c'];
const FIRST = 3;

function pointwiseCode(op: Pointwise, walk: Walk): string {
  const { expression, compute, type, dtype } = op;
  const names = NAMES.slice(0, op.operands.length);
  const constants = (op.constants ?? []).map((_, i) => `  let ${'pq'[i]} = ${floatParam(1 + i)};`);
  const parameters = names.map((name) => `${name}: ${compute}`).join(', ');
  const truth = dtype === 'bool' ? `select(0i, 1i, ${expression})` : expression;
  const given = dtype === 'bool' ? 'i32' : compute;
  const f = `alias T = ${compute};
fn f(${parameters}${op.constants ? ', p: f32, q: f32' : ''}) -> ${given} { return ${truth}; }`;
  const extra = op.constants ? ', p, q' : '';
  const stored = typeOf({ type, width: walk.width });
  const loads = names.map((name, k) => {
    const wide = walk.width === 4 && walk.vector[k];
    return wide ? `  let ${name} = vec4<${compute}>(in${k}[at${k}]);` : `  let ${name} = ${compute}(in${k}[at${k}]);`;
  });
  const at = (name: string, k: number, part: string) => (walk.width === 4 && walk.vector[k] ? `${name}.${part}` : name);
  const call = (part: string) => `f(${names.map((name, k) => at(name, k, part)).join(', ')}${extra})`;
  const value = walk.width === 4 ? `vec4(${[...'xyzw'].map(call).join(', ')})` : call('');
  const body = `${constants.join('\n')}\n${walkCode(walk, FIRST)}\n${loads.join('\n')}\n  result[i] = ${stored}(${value});`;
  return `${withFunctions(expression, compute === 'i32')}\n${f}\n${flatMain(body)}`;
}

/** Runs a pointwise function with one dispatch. */
export function pointwise(backend: WebGpuBackend, op: Pointwise): Info {
  const { kernel: name, expression, compute, operands, shape, dtype, type, constants } = op;
  const result = backend.empty(shape, dtype, type);
  if (tf.util.sizeFromShape(shape) === 0) {
    return result;
  }
  const strides = operands.map((x) => broadcastStrides(x.shape, shape));
  const walk = planWalk(shape, strides, [], true);
  const count = walkCount(walk);
  const [p = 0, q = 0] = constants ?? [];
  backend.run({
    kernel: name,
    key: `${expression}|${compute}|${walkKey(walk)}|${dtype}${constants ? 'pq' : ''}`,
    code: () => pointwiseCode({ ...op, constants: constants && [p, q] }, walk),
    inputs: operands.map((of, k): Operand => ({ name: `in${k}`, of, width: walk.vector[k] ? walk.width : 1 })),
    outputs: [{ name: 'result', of: result, width: walk.width }],
    params: [count, float(p), float(q), ...walkParams(walk)],
    groups: flatGroups(count),
    flops: count * walk.width,
  });
  return result;
}

/** The same numbers in another type; a new reference when they are that already. */
export function convert(backend: WebGpuBackend, x: Info, type: ElementType, dtype: tf.DataType): Info {
  const from = backend.typeOf(x);
  if (from === type && dtype === x.dtype) {
    return backend.share(x);
  }
  const compute = from === 'i32' ? 'i32' : 'f32';
  const expression = dtype === 'bool' ? 'a != T(0)' : 'a';
  return pointwise(backend, { kernel: 'Cast', expression, compute, operands: [x], shape: x.shape, dtype, type });
}

const CONSTANTS: Record<string, readonly string[]> = {
  LeakyRelu: ['alpha'],
  Step: ['alpha'],
  ClipByValue: ['clipValueMin', 'clipValueMax'],
};

const unary = (name: string): KernelDefinition =>
  kernel(name, ({ inputs, backend, attrs }) => {
    const x = inputs.x!;
    const integer = backend.typeOf(x) === 'i32';
    const exact = integer && UNARY_INT[name] !== undefined;
    const [dtype, type]: [tf.DataType, ElementType] =
      integer && (exact || ROUNDS_TO_INT.has(name))
        ? ['int32', 'i32']
        : ['float32', integer ? 'f32' : backend.typeOf(x)];
    return pointwise(backend, {
      kernel: name,
      expression: exact ? UNARY_INT[name]! : UNARY[name]!,
      compute: exact ? 'i32' : 'f32',
      operands: [x],
      shape: x.shape,
      dtype,
      type,
      constants: CONSTANTS[name]?.map((key) => Number(attrs[key] ?? 0)),
    });
  });

const test = (name: string, expression: string, compute: 'f32' | 'i32'): KernelDefinition =>
  kernel(name, ({ inputs, backend }) => {
    const x = inputs.x!;
    const op = { kernel: name, expression, compute, operands: [x], shape: x.shape };
    return pointwise(backend, { ...op, dtype: 'bool', type: 'i32' });
  });

function binary(backend: WebGpuBackend, name: string, a: Info, b: Info): Info {
  const type = promote(backend, a, b);
  const compute = type === 'i32' && BINARY_INT[name] ? 'i32' : 'f32';
  return pointwise(backend, {
    kernel: name,
    expression: (compute === 'i32' ? BINARY_INT : BINARY)[name]!,
    compute,
    operands: [a, b],
    shape: tf.broadcast_util.assertAndGetBroadcastShape(a.shape, b.shape),
    dtype: compute === 'i32' ? 'int32' : 'float32',
    type: compute === 'f32' && type === 'i32' ? 'f32' : type,
  });
}

const comparison = (name: string): KernelDefinition =>
  kernel(name, ({ inputs, backend }) => {
    const [a, b] = [inputs.a!, inputs.b!];
    return pointwise(backend, {
      kernel: name,
      expression: COMPARISONS[name]!,
      compute: promote(backend, a, b) === 'i32' ? 'i32' : 'f32',
      operands: [a, b],
      shape: tf.broadcast_util.assertAndGetBroadcastShape(a.shape, b.shape),
      dtype: 'bool',
      type: 'i32',
    });
  });

function select(backend: WebGpuBackend, condition: Info, t: Info, e: Info): Info {
  // a vector of conditions picks whole rows of operands of a higher rank
  const rows = condition.shape.length === 1 && t.shape.length > 1 && condition.shape[0] === t.shape[0];
  const shape = rows ? [...condition.shape, ...t.shape.slice(1).map(() => 1)] : condition.shape;
  const type = promote(backend, t, e);
  const full = tf.broadcast_util.assertAndGetBroadcastShape(t.shape, e.shape);
  return pointwise(backend, {
    kernel: 'Select',
    expression: 'select(c, b, a != T(0))',
    compute: type === 'i32' ? 'i32' : 'f32',
    operands: [{ ...condition, shape }, t, e],
    shape: tf.broadcast_util.assertAndGetBroadcastShape(shape, full),
    dtype: t.dtype === e.dtype ? t.dtype : type === 'i32' ? 'int32' : 'float32',
    type,
  });
}

function addN(backend: WebGpuBackend, terms: Info[]): Info {
  let sum = backend.share(terms[0]!);
  for (const term of terms.slice(1)) {
    const next = binary(backend, 'Add', sum, term);
    backend.disposeInfo(sum);
    sum = next;
  }
  return sum;
}

/** How a value becomes a number of a bool or int32 tensor. */
const storedValue = (value: number, dtype: tf.DataType) =>
  dtype === 'bool' ? Number(value !== 0) : dtype === 'int32' ? Math.trunc(value) : value;

/** A tensor of one number everywhere; a small one stays in JavaScript until it is needed. */
export function fill(
  backend: WebGpuBackend,
  shape: number[],
  value: number,
  dtype: tf.DataType,
  type: ElementType = dtype === 'float32' ? 'f32' : 'i32',
): Info {
  const size = tf.util.sizeFromShape(shape);
  const stored = storedValue(value, dtype);
  if (size <= 1024 && type !== 'f16') {
    const Numbers = dtype === 'float32' ? Float32Array : dtype === 'int32' ? Int32Array : Uint8Array;
    return backend.makeTensorInfo(shape, dtype, new Numbers(size).fill(stored));
  }
  const one = backend.makeTensorInfo([], type === 'i32' ? 'int32' : 'float32', Float32Array.of(stored));
  const compute = type === 'i32' ? 'i32' : 'f32';
  const expression = dtype === 'bool' ? 'a != T(0)' : 'a';
  const result = pointwise(backend, { kernel: 'Fill', expression, compute, operands: [one], shape, dtype, type });
  backend.disposeInfo(one);
  return result;
}

function like(name: string, value: number): KernelDefinition {
  return kernel(name, ({ inputs, backend }) => {
    const { shape, dtype } = inputs.x!;
    return fill(backend, shape, value, dtype, backend.typeOf(inputs.x!));
  });
}

const cast = kernel('Cast', ({ inputs, backend, attrs }) => {
  const { dtype } = attrs as { dtype: tf.DataType };
  const x = inputs.x!;
  if (dtype === x.dtype) {
    return backend.share(x);
  }
  if (dtype !== 'float32' && dtype !== 'int32' && dtype !== 'bool') {
    throw new BackendError(`[Cast] the backend webgpu casts to float32, int32 and bool, got ${dtype}`);
  }
  return convert(backend, x, dtype === 'float32' ? 'f32' : 'i32', dtype);
});

const physicalCast = kernel('PhysicalCast', ({ inputs, backend, attrs }) =>
  convert(backend, inputs.x!, attrs.physical === 'float16' ? 'f16' : 'f32', 'float32'),
);

/** One number in, one out, with broadcasting of several operands. */
export const elementwise: KernelDefinition[] = [
  ...Object.keys(UNARY).map(unary),
  ...Object.entries(TESTS).map(([name, expression]) => test(name, expression, 'f32')),
  test('LogicalNot', 'a == 0', 'i32'),
  ...Object.keys(BINARY)
    .filter((name) => name !== 'Prelu')
    .map((name) => kernel(name, ({ inputs, backend }) => binary(backend, name, inputs.a!, inputs.b!))),
  ...Object.keys(COMPARISONS).map(comparison),
  kernel('Prelu', ({ inputs, backend }) => binary(backend, 'Prelu', inputs.x!, inputs.alpha!)),
  kernel('Select', ({ inputs, backend }) => select(backend, inputs.condition!, inputs.t!, inputs.e!)),
  kernel('AddN', ({ inputs, backend }) => addN(backend, Object.values(inputs))),
  like('ZerosLike', 0),
  like('OnesLike', 1),
  cast,
  physicalCast,
  {
    name: 'Fill',
    run: ({ backend, attrs }) => {
      const { value, shape } = attrs;
      const dtype = attrs.dtype ?? tf.util.inferDtype(value);
      if (typeof value === 'string' || !['float32', 'int32', 'bool'].includes(dtype)) {
        throw new InvalidArgumentError(`[Fill] the backend webgpu fills float32, int32 and bool, got ${dtype}`);
      }
      return fill(backend, shape, Number(value), dtype);
    },
  },
  {
    name: 'Range',
    run: ({ backend, attrs: { start, stop, step: given = 1, dtype = 'float32' } }) => {
      const step = stop < start && given === 1 ? -1 : given;
      const count = start === stop || start < stop !== step > 0 ? 0 : Math.ceil(Math.abs((stop - start) / step));
      const Numbers = dtype === 'float32' ? Float32Array : Int32Array;
      const values = new Numbers(count);
      for (let i = 0; i < count; i++) {
        values[i] = start + i * step;
      }
      return backend.makeTensorInfo([count], dtype, values);
    },
  },
];
