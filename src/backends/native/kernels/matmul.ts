import * as tf from '@tensorflow/tfjs-core';
import type { Info, NativeBackend } from '../backend.js';
import { forward } from '../forward.js';
import { applyEpilogue, EPILOGUE } from './activation.js';
import { type KernelDefinition, kernel } from './definition.js';

const { util, broadcast_util } = tf;

/** x with its batch dimensions merged to one; repeated where the other operand has more of them. */
function mergeBatch(backend: NativeBackend, x: Info, batch: number[], temporary: Info[]): Info {
  const own = x.shape.slice(0, -2);
  const matrix = x.shape.slice(-2);
  const size = util.sizeFromShape(own);
  let source = x;
  if (size !== 1 && size !== util.sizeFromShape(batch)) {
    source = backend.run1('BroadcastTo', [x], { shape: [...batch, ...matrix] });
    temporary.push(source);
  }
  const merged = source === x ? size : util.sizeFromShape(batch);
  return { dataId: source.dataId, dtype: x.dtype, shape: [merged, ...matrix] };
}

function product(backend: NativeBackend, a: Info, b: Info, bias: Info | undefined, ta: boolean, tb: boolean): Info {
  const inner = a.shape[a.shape.length - (ta ? 2 : 1)];
  const other = b.shape[b.shape.length - (tb ? 1 : 2)];
  util.assert(
    inner === other,
    () =>
      `Error in matMul: inner shapes (${inner}) and (${other}) of Tensors with shapes ${a.shape} and ${b.shape} ` +
      `and transposeA=${ta} and transposeB=${tb} must match.`,
  );
  const batch = broadcast_util.assertAndGetBroadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const temporary: Info[] = [];
  const result = backend.run1(
    'BatchMatMul',
    [mergeBatch(backend, a, batch, temporary), mergeBatch(backend, b, batch, temporary), bias],
    { transposeA: ta, transposeB: tb },
  );
  for (const info of temporary) backend.dispose1(info);
  return { ...result, shape: [...batch, ...result.shape.slice(-2)] };
}

export const matmul: KernelDefinition[] = [
  kernel(
    'BatchMatMul',
    (args) => {
      const { inputs, backend, attrs } = args;
      if (inputs.a!.dtype !== 'float32' || inputs.b!.dtype !== 'float32') return forward('BatchMatMul', args);
      return product(backend, inputs.a!, inputs.b!, undefined, !!attrs.transposeA, !!attrs.transposeB);
    },
    ['BatchMatMul', 'BroadcastTo'],
  ),
  kernel(
    '_FusedMatMul',
    (args) => {
      const { inputs, backend, attrs } = args;
      const { a, b, bias, preluActivationWeights } = inputs;
      if (a!.dtype !== 'float32' || b!.dtype !== 'float32') return forward('_FusedMatMul', args);
      const columns = b!.shape[b!.shape.length - (attrs.transposeB ? 2 : 1)];
      const inside = bias && util.sizeFromShape(bias.shape) === columns && bias.shape.at(-1) === columns;
      const sums = product(backend, a!, b!, inside ? bias : undefined, !!attrs.transposeA, !!attrs.transposeB);
      const rest = inside ? undefined : bias;
      return applyEpilogue(backend, sums, rest, attrs.activation, preluActivationWeights, attrs.leakyreluAlpha);
    },
    ['BatchMatMul', 'BroadcastTo', ...EPILOGUE],
  ),
];
