import * as tf from '@tensorflow/tfjs-core';
import { float, type Info, type Operand, type WebGpuBackend } from '../backend.js';
import { chooseTile, loadColumns, loadRows, OWN_PARAMS, productCode, productParts, SIZE, storeRows } from '../gemm.js';
import { type ElementType, floatParam, param, typeOf } from '../wgsl.js';
import { applyEpilogue } from './activation.js';
import { type KernelArguments, type KernelDefinition, kernel, promote, sizeOf } from './definition.js';
import { convert } from './elementwise.js';
import { broadcastTo } from './movement.js';

const { util, broadcast_util } = tf;

/** A matrix per batch item and head inside a tensor, by strides in numbers. */
export interface Matrices {
  of: Info;
  offset: number;
  /** Step to the next batch item and to the next head. */
  batch: number;
  head: number;
  row: number;
  column: number;
}

export interface StridedProduct {
  kernel: string;
  a: Matrices;
  b: Matrices;
  /** Its columns lie side by side. */
  c: Omit<Matrices, 'column'>;
  rows: number;
  columns: number;
  depth: number;
  batch: number;
  heads: number;
  scale?: number;
  /** Added to what c holds instead of replacing it. */
  accumulate?: boolean;
  /** Added to every row, [columns]. */
  bias?: Info;
}

const HEADS = param(OWN_PARAMS);
const A = OWN_PARAMS + 2;
const B = A + 5;
const C = B + 5;

const place = (first: number, row: string, column: string) =>
  `${param(first)} + (batch / ${HEADS}) * ${param(first + 1)} + (batch % ${HEADS}) * ${param(first + 2)}` +
  ` + ${row} * ${param(first + 3)}${column}`;

const multipleOf4 = (numbers: number[]) => numbers.every((n) => n % 4 === 0);

/** Whether four numbers along the columns can be read at once. */
const isWide = (m: Omit<Matrices, 'column'> & { column?: number }, columns: number) =>
  (m.column ?? 1) === 1 && multipleOf4([columns, m.offset, m.batch, m.head, m.row]);

function loader(name: 'A' | 'B', first: number, wide: boolean, bounds: [string, string]): string {
  const [row, column] = name === 'A' ? ['row', 'k'] : ['k', 'column'];
  const [rows, columns] = bounds;
  const x = name.toLowerCase();
  const body = wide
    ? `v = vec4<TILE>(${x}[(${place(first, row, ` + ${column}`)}) / 4u]);`
    : `let at = ${place(first, row, ` + ${column} * ${param(first + 4)}`)};
  for (var i = 0u; i < min(4u, ${columns} - ${column}); i++) { v[i] = TILE(${x}[at + i * ${param(first + 4)}]); }`;
  return `fn load${name}(batch: u32, ${row}: u32, ${column}: u32) -> vec4<TILE> {
  var v = vec4<TILE>(0);
  if (${row} >= ${rows} || ${column} >= ${columns}) { return v; }
  ${body}
  return v;
}`;
}

function storeStrided(width: 1 | 4, type: ElementType, accumulate: boolean, bias: boolean): string {
  const number = width === 4 ? 'vec4<f32>' : 'f32';
  const of = width === 4 ? ' / 4u' : '';
  const one = `fn storeAt(batch: u32, row: u32, column: u32, v: ${number}) {
  if (row >= ${SIZE.rows} || column >= ${SIZE.columns}) { return; }
  let at = (${place(C, 'row', ' + column')})${of};
  var y = v * ${floatParam(OWN_PARAMS + 1)};
  ${bias ? `y += ${number}(bias[column${of}]);` : ''}
  ${accumulate ? `y += ${number}(c[at]);` : ''}
  c[at] = ${typeOf({ type, width })}(y);
}`;
  const parts = width === 4 ? [''] : ['.x', '.y', '.z', '.w'];
  return `${one}
fn store(batch: u32, row: u32, column: u32, v: vec4<f32>) {
  ${parts.map((part, i) => `storeAt(batch, row, column + ${i}u, v${part});`).join('\n  ')}
}`;
}

/** c = scale a b (+ c) (+ bias) for every batch item and head, where they lie. */
export function stridedProduct(backend: WebGpuBackend, p: StridedProduct): void {
  const { rows, columns, depth, batch, heads, accumulate = false } = p;
  if (rows * columns * batch * heads === 0) {
    return;
  }
  const tile = chooseTile(rows, columns, batch * heads);
  const [aWide, bWide, cWide] = [isWide(p.a, depth), isWide(p.b, columns), isWide(p.c, columns)];
  const width = cWide ? 4 : 1;
  const type = backend.typeOf(p.a.of) === 'f16' && backend.typeOf(p.b.of) === 'f16' ? 'f16' : 'f32';
  const inputs: Operand[] = [
    { name: 'a', of: p.a.of, width: aWide ? 4 : 1 },
    { name: 'b', of: p.b.of, width: bWide ? 4 : 1 },
  ];
  if (p.bias) {
    inputs.push({ name: 'bias', of: p.bias, width });
  }
  const strides = (m: Matrices) => [m.offset, m.batch, m.head, m.row, m.column];
  for (const { firstRow, groups, flops } of productParts(rows, columns, depth, batch * heads, tile)) {
    backend.run({
      kernel: p.kernel,
      key: `${tile.rows}x${tile.columns}${type}${accumulate}`,
      code: () =>
        productCode({
          tile,
          type,
          loadA: loader('A', A, aWide, [SIZE.rows, SIZE.depth]),
          loadB: loader('B', B, bWide, [SIZE.depth, SIZE.columns]),
          store: storeStrided(width, backend.typeOf(p.c.of), accumulate, p.bias !== undefined),
        }),
      inputs,
      outputs: [{ name: 'c', of: p.c.of, width }],
      params: [
        ...[rows, columns, depth, firstRow, heads, float(p.scale ?? 1)],
        ...strides(p.a),
        ...strides(p.b),
        ...[p.c.offset, p.c.batch, p.c.head, p.c.row],
      ],
      groups,
      flops,
    });
  }
}

/** x with its batch dimensions merged to one; repeated where the other operand has more of them. */
function mergeBatch(backend: WebGpuBackend, x: Info, batch: number[], temporary: Info[]): { of: Info; step: number } {
  const own = x.shape.slice(0, -2);
  const size = util.sizeFromShape(own);
  const matrix = x.shape.at(-2)! * x.shape.at(-1)!;
  if (size === 1 || size === util.sizeFromShape(batch)) {
    return { of: x, step: size === 1 ? 0 : matrix };
  }
  const source = broadcastTo(backend, x, [...batch, ...x.shape.slice(-2)]);
  temporary.push(source);
  return { of: source, step: matrix };
}

function product(backend: WebGpuBackend, a: Info, b: Info, bias: Info | undefined, ta: boolean, tb: boolean): Info {
  const [aRows, aColumns, bRows, bColumns] = [a.shape.at(-2)!, a.shape.at(-1)!, b.shape.at(-2)!, b.shape.at(-1)!];
  const [rows, depth] = ta ? [aColumns, aRows] : [aRows, aColumns];
  const [inner, columns] = tb ? [bColumns, bRows] : [bRows, bColumns];
  util.assert(
    depth === inner,
    () =>
      `Error in matMul: inner shapes (${depth}) and (${inner}) of Tensors with shapes ${a.shape} and ${b.shape} ` +
      `and transposeA=${ta} and transposeB=${tb} must match.`,
  );
  const batch = broadcast_util.assertAndGetBroadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const temporary: Info[] = [];
  const [left, right] = [mergeBatch(backend, a, batch, temporary), mergeBatch(backend, b, batch, temporary)];
  const result = backend.empty([...batch, rows, columns], 'float32', promote(backend, a, b));
  const plain = { offset: 0, head: 0 };
  stridedProduct(backend, {
    kernel: 'BatchMatMul',
    a: { ...plain, of: left.of, batch: left.step, row: ta ? 1 : aColumns, column: ta ? aColumns : 1 },
    b: { ...plain, of: right.of, batch: right.step, row: tb ? 1 : bColumns, column: tb ? bColumns : 1 },
    c: { ...plain, of: result, batch: rows * columns, row: columns },
    rows,
    columns,
    depth,
    batch: util.sizeFromShape(batch),
    heads: 1,
    bias,
  });
  temporary.forEach((info) => {
    backend.disposeInfo(info);
  });
  return result;
}

/** Matrices of int32 are multiplied as float32, exact up to 2^24. */
function productOf(name: string, args: KernelArguments, bias?: Info): Info {
  const { inputs, backend, attrs } = args;
  const [a, b] = [inputs.a!, inputs.b!];
  const [ta, tb] = [!!attrs.transposeA, !!attrs.transposeB];
  if (a.dtype === 'float32' && b.dtype === 'float32') {
    return product(backend, a, b, bias, ta, tb);
  }
  const operands = [a, b].map((x) => convert(backend, x, 'f32', 'float32')) as [Info, Info];
  const sums = product(backend, ...operands, bias, ta, tb);
  const integer = a.dtype !== 'float32' && b.dtype !== 'float32' && name === 'BatchMatMul';
  const result = integer ? convert(backend, sums, 'i32', 'int32') : backend.share(sums);
  for (const info of [...operands, sums]) {
    backend.disposeInfo(info);
  }
  return result;
}

/** act(x W + b) + residual, or the gated form; see src/ops/linear.ts. */
function linear(backend: WebGpuBackend, inputs: Record<string, Info | undefined>, activation: string): Info {
  const [x, weight, bias, residual] = [inputs.x!, inputs.weight!, inputs.bias, inputs.residual];
  const [depth, all] = [weight.shape[0]!, weight.shape[1]!];
  const gated = activation === 'geglu';
  const columns = gated ? all / 2 : all;
  const rows = sizeOf(x) / depth;
  const type = promote(backend, x, weight);
  const result = backend.empty([...x.shape.slice(0, -1), columns], 'float32', type);
  const tile = chooseTile(rows, columns, 1);
  const [xWidth, width] = [depth % 4 === 0 ? 4 : 1, columns % 4 === 0 ? 4 : 1] as [1 | 4, 1 | 4];
  const tileType = type === 'f16' && backend.typeOf(weight) === 'f16' ? 'f16' : 'f32';
  const operands: Operand[] = [
    { name: 'x', of: x, width: xWidth },
    { name: 'weight', of: weight, width },
    ...(bias ? [{ name: 'bias', of: bias, width }] : []),
    ...(residual ? [{ name: 'residual', of: residual, width }] : []),
  ];
  for (const { firstRow, groups, flops } of productParts(rows, columns, depth, 1, tile)) {
    backend.run({
      kernel: 'Linear',
      key: `${tile.rows}x${tile.columns}${tileType}${activation}`,
      code: () =>
        productCode({
          tile,
          type: tileType,
          loadA: loadRows(xWidth),
          loadB: loadColumns(width, param(OWN_PARAMS)),
          store: storeRows({
            width,
            type,
            bias: !!bias,
            residual: !!residual,
            gated,
            activation: gated ? '' : activation,
          }),
          gated,
        }),
      inputs: operands,
      outputs: [{ name: 'result', of: result, width }],
      params: [rows, columns, depth, firstRow, all],
      groups,
      flops: gated ? 2 * flops : flops,
    });
  }
  return result;
}

/** [x Wq + bq, x Wk + bk, x Wv + bv] along the last axis; see src/ops/attention/packed_qkv.ts. */
function packedQkv(backend: WebGpuBackend, inputs: Record<string, Info | undefined>): Info {
  const { x, q, k, v, bq, bk, bv } = inputs;
  const [depth, each] = [q!.shape[0]!, q!.shape[1]!];
  const rows = sizeOf(x!) / depth;
  const type = promote(backend, x!, q!);
  const result = backend.empty([...x!.shape.slice(0, -1), 3 * each], 'float32', type);
  // three products into one tensor: their columns lie side by side
  [q!, k!, v!].forEach((weight, i) => {
    const plain = { offset: 0, batch: 0, head: 0 };
    stridedProduct(backend, {
      kernel: 'PackedQkv',
      a: { ...plain, of: x!, row: depth, column: 1 },
      b: { ...plain, of: weight, row: each, column: 1 },
      c: { ...plain, of: result, offset: i * each, row: 3 * each },
      rows,
      columns: each,
      depth,
      batch: 1,
      heads: 1,
      bias: [bq, bk, bv][i],
    });
  });
  return result;
}

export const matmul: KernelDefinition[] = [
  kernel('BatchMatMul', (args) => productOf('BatchMatMul', args)),
  kernel('_FusedMatMul', (args) => {
    const { inputs, backend, attrs } = args;
    const { b, bias, preluActivationWeights } = inputs;
    const columns = b!.shape[b!.shape.length - (attrs.transposeB ? 2 : 1)];
    const inside = bias && sizeOf(bias) === columns && bias.shape.at(-1) === columns;
    const sums = productOf('_FusedMatMul', args, inside ? bias : undefined);
    const rest = inside ? undefined : bias;
    return applyEpilogue(backend, sums, rest, attrs.activation, preluActivationWeights, attrs.leakyreluAlpha);
  }),
  kernel('Linear', ({ inputs, backend, attrs }) => linear(backend, inputs, attrs.activation)),
  kernel('PackedQkv', ({ inputs, backend }) => packedQkv(backend, inputs)),
];
