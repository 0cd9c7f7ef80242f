import * as tf from '@tensorflow/tfjs-core';
import { float, type Info, type Operand, type WebGpuBackend } from '../backend.js';
import { type FlashInputs, flashCode, flashTile } from '../flash.js';
import { flatGroups, flatMain, param, rowMain, workgroupReduce } from '../wgsl.js';
import { type KernelDefinition, kernel, promote, sizeOf } from './definition.js';
import { type Matrices, stridedProduct } from './matmul.js';

/** Where the rows of every batch item and head lie in a tensor. */
interface Rows {
  of: Info;
  offset: number;
  batch: number;
  head: number;
  row: number;
}

interface Shape {
  batch: number;
  heads: number;
  queries: number;
  keys: number;
  dim: number;
  valueDim: number;
}

/** q, k, v and their like [B, heads, N, d] or [B, N, heads * d], as rows. */
function rowsOf(of: Info, heads: number): Rows {
  const { shape } = of;
  if (shape.length === 4) {
    const [, h, n, d] = shape as [number, number, number, number];
    return { of, offset: 0, batch: h * n * d, head: n * d, row: d };
  }
  const [, n, channels] = shape as [number, number, number];
  return { of, offset: 0, batch: n * channels, head: channels / heads, row: channels };
}

function shapeOf(q: Info, k: Info, v: Info, heads: number): Shape {
  const tokens = q.shape.length === 3;
  const along = (x: Info) => x.shape.at(-2)!;
  const dim = (x: Info) => (tokens ? x.shape[2]! / heads : x.shape[3]!);
  return { batch: q.shape[0]!, heads, queries: along(q), keys: along(k), dim: dim(q), valueDim: dim(v) };
}

/** Strides of a bias [1|B, 1|heads, 1|Nq, 1|Nk], 0 where it is repeated. */
function biasStrides(bias: Info | undefined): number[] {
  return bias ? bias.shape.map((n, i) => (n === 1 ? 0 : tf.util.sizeFromShape(bias.shape.slice(i + 1)))) : [0, 0, 0, 0];
}

interface Call {
  kernel: string;
  q: Rows;
  k: Rows;
  v: Rows;
  bias?: Info;
  scale: number;
  shape: Shape;
}

const HIDDEN = -1e30;
/** The bits of -Infinity, which a shader may not write as a number. */
const MINUS_INFINITY = 0xff800000;
/** Numbers of scores that the wide form and the gradient hold at a time. */
const SCORES = 2 ** 22;

const strides = ({ offset, batch, head, row }: Rows) => [offset, batch, head, row];
const isWide = (rows: Rows, dim: number) => [dim, ...strides(rows)].every((n) => n % 4 === 0);

function flash(backend: WebGpuBackend, call: Call, out: Rows, lse: Info): void {
  const { q, k, v, bias, scale, shape } = call;
  const { batch, heads, queries, keys, dim, valueDim } = shape;
  const type = backend.typeOf(k.of) === 'f16' && backend.typeOf(v.of) === 'f16' ? 'f16' : 'f32';
  const tile = flashTile(dim, valueDim, type === 'f16' ? 2 : 4, backend.description.workgroupBytes)!;
  const inputs: FlashInputs = {
    dim,
    valueDim,
    tile,
    type,
    out: backend.typeOf(out.of),
    bias: bias && backend.typeOf(bias),
  };
  const operands: Operand[] = [
    { name: 'q', of: q.of, width: 4 },
    { name: 'k', of: k.of, width: 4 },
    { name: 'v', of: v.of, width: 4 },
    ...(bias ? [{ name: 'bias', of: bias, bits: true }] : []),
  ];
  backend.run({
    kernel: call.kernel,
    key: `flash${dim},${valueDim},${tile.rows},${tile.keys}`,
    code: () => flashCode(inputs),
    inputs: operands,
    outputs: [
      { name: 'result', of: out.of, width: 4 },
      { name: 'lse', of: lse },
    ],
    params: [
      ...[queries, keys, heads, float(scale * Math.LOG2E), MINUS_INFINITY],
      ...[q, k, v, out].flatMap(strides),
      ...biasStrides(bias),
    ],
    groups: [Math.ceil(queries / tile.rows), batch * heads, 1],
    flops: 2 * batch * heads * queries * keys * (dim + valueDim),
  });
}

const column = (rows: Rows): Matrices => ({ ...rows, column: 1 });
/** The same matrices with rows and columns exchanged. */
const turned = (rows: Rows): Matrices => ({ ...rows, row: 1, column: rows.row });
const from = (rows: Rows, first: number): Rows => ({ ...rows, offset: rows.offset + first * rows.row });

/** WGSL of score j of a row, with its bias; hidden keys are far below all others. */
function biased(hasBias: boolean, type: string): string {
  if (!hasBias) {
    return 'fn biasAt(b: u32, h: u32, r: u32, j: u32) -> f32 { return 0.0; }';
  }
  const at = `b * ${param(4)} + h * ${param(5)} + r * ${param(6)} + j * ${param(7)}`;
  const value =
    type === 'f16'
      ? `let x = bias[${at}]; let bits = bitcast<u32>(vec2<f16>(x, 0.0h)) & 0xffffu; return select(f32(x), ${HIDDEN}, bits == 0xfc00u);`
      : `let bits = bias[${at}]; return select(bitcast<f32>(bits), ${HIDDEN}, bits == ${MINUS_INFINITY}u);`;
  return `fn biasAt(b: u32, h: u32, r: u32, j: u32) -> f32 { ${value} }`;
}

const biasOperand = (bias?: Info): Operand[] => (bias ? [{ name: 'bias', of: bias, bits: true }] : []);

const LANES = 64;

/** Turns scores [B, heads, rows, keys] into weights and their log-sum-exp. */
function weights(
  backend: WebGpuBackend,
  call: Call,
  scores: Info,
  result: Info,
  lse: Info,
  first: number,
  rows: number,
): void {
  const { shape, bias, kernel: name } = call;
  const { batch, heads, queries, keys } = shape;
  const type = backend.typeOf(result);
  const { hasSubgroups } = backend.description;
  const at = 'f32(scores[start + j]) + biasAt(b, h, r, j)';
  backend.run({
    kernel: name,
    key: 'weights',
    code: () => `${workgroupReduce('largest', LANES, 'max', hasSubgroups)}
${workgroupReduce('sum', LANES, 'add', hasSubgroups)}
${biased(!!bias, bias ? backend.typeOf(bias) : 'f32')}
${rowMain(
  LANES,
  `  let keys = ${param(1)}; let start = row * keys;
  let r = row % ${param(2)} + ${param(3)}; let bh = row / ${param(2)}; let h = bh % ${param(8)}; let b = bh / ${param(8)};
  var top = ${HIDDEN};
  for (var j = lane; j < keys; j += ${LANES}u) { top = max(top, ${at}); }
  top = largest(top, lane);
  var total = 0.0;
  for (var j = lane; j < keys; j += ${LANES}u) { let s = ${at}; total += select(exp(s - top), 0.0, s <= ${HIDDEN / 2}); }
  total = sum(total, lane);
  let none = total == 0.0;
  for (var j = lane; j < keys; j += ${LANES}u) {
    let s = ${at};
    result[start + j] = ${type}(select(exp(s - top) / total, 0.0, none || s <= ${HIDDEN / 2}));
  }
  if (lane == 0u) { lse[bh * ${param(9)} + r] = select(top + log(total), bitcast<f32>(${param(10)}), none); }`,
  hasSubgroups,
)}`,
    inputs: [{ name: 'scores', of: scores }, ...biasOperand(bias)],
    outputs: [
      { name: 'result', of: result },
      { name: 'lse', of: lse },
    ],
    params: [batch * heads * rows, keys, rows, first, ...biasStrides(bias), heads, queries, MINUS_INFINITY],
    groups: flatGroups(batch * heads * rows, 1),
    flops: sizeOf(scores) * 6,
  });
}

/** Rows of queries whose scores fit into the memory that is set aside for them. */
const rowsAtATime = ({ batch, heads, keys, queries }: Shape) =>
  Math.min(queries, Math.max(1, Math.floor(SCORES / (batch * heads * keys))));

/** Rows [B, heads, rows, n] of a matrix of scores. */
function scoreRows(of: Info): Rows {
  return rowsOf(of, of.shape[1]!);
}

/** For heads wider than a workgroup's memory (a VAE's): some queries at a time, by matrix products. */
function wideAttention(backend: WebGpuBackend, call: Call, out: Rows, lse: Info): void {
  const { q, k, v, scale, shape } = call;
  const { batch, heads, queries, keys, dim, valueDim } = shape;
  const most = rowsAtATime(shape);
  for (let first = 0; first < queries; first += most) {
    const rows = Math.min(most, queries - first);
    const scores = backend.empty([batch, heads, rows, keys], 'float32');
    const p = backend.empty([batch, heads, rows, keys], 'float32', backend.typeOf(v.of));
    const common = { kernel: call.kernel, batch, heads };
    const qk = { a: column(from(q, first)), b: turned(k), c: scoreRows(scores) };
    stridedProduct(backend, { ...common, ...qk, rows, columns: keys, depth: dim, scale });
    weights(backend, call, scores, p, lse, first, rows);
    const pv = { a: column(scoreRows(p)), b: column(v), c: from(out, first) };
    stridedProduct(backend, { ...common, ...pv, rows, columns: valueDim, depth: keys });
    backend.disposeInfo(scores);
    backend.disposeInfo(p);
  }
}

/** [out, log-sum-exp] */
function forward(backend: WebGpuBackend, call: Call, outShape: number[]): Info[] {
  const { q, k, v, shape } = call;
  const { batch, heads, queries, dim, valueDim } = shape;
  const result = backend.empty(outShape, 'float32', promote(backend, q.of, v.of));
  const lse = backend.empty([batch, heads, queries], 'float32');
  const out = rowsOf(result, heads);
  if (sizeOf(result) === 0) {
    return [result, lse];
  }
  const wide = [q, k].every((x) => isWide(x, dim)) && [v, out].every((x) => isWide(x, valueDim));
  const tile = flashTile(dim, valueDim, backend.typeOf(k.of) === 'f16' ? 2 : 4, backend.description.workgroupBytes);
  (wide && tile ? flash : wideAttention)(backend, call, out, lse);
  return [result, lse];
}

/** delta = sum(dy * out) per row, [B, heads, Nq]. */
function rowProducts(backend: WebGpuBackend, call: Call, dy: Rows, out: Rows): Info {
  const { batch, heads, queries, valueDim } = call.shape;
  const result = backend.empty([batch, heads, queries], 'float32');
  const count = sizeOf(result);
  const place = (first: number) =>
    `(bh / ${param(2)}) * ${param(first + 1)} + (bh % ${param(2)}) * ${param(first + 2)} + r * ${param(first + 3)} + ${param(first)}`;
  backend.run({
    kernel: call.kernel,
    key: 'delta',
    code: () =>
      flatMain(`  let bh = i / ${param(1)}; let r = i % ${param(1)};
  let at = ${place(4)}; let other = ${place(8)};
  var sum = 0.0;
  for (var j = 0u; j < ${param(3)}; j++) { sum += f32(dy[at + j]) * f32(out[other + j]); }
  result[i] = sum;`),
    inputs: [
      { name: 'dy', of: dy.of },
      { name: 'out', of: out.of },
    ],
    outputs: [{ name: 'result', of: result }],
    params: [count, queries, heads, valueDim, ...strides(dy), ...strides(out)],
    groups: flatGroups(count),
    flops: 2 * count * valueDim,
  });
  return result;
}

/** p = exp(scores - lse) and ds = p (dp - delta). */
function scoreGradients(
  backend: WebGpuBackend,
  call: Call,
  given: { scores: Info; dp: Info; lse: Info; delta: Info },
  first: number,
  rows: number,
): { p: Info; ds: Info } {
  const { shape, bias } = call;
  const { batch, heads, queries, keys } = shape;
  const [p, ds] = [0, 1].map(() => backend.empty([batch, heads, rows, keys], 'float32')) as [Info, Info];
  const count = sizeOf(p);
  backend.run({
    kernel: call.kernel,
    key: 'scores',
    code: () => `${biased(!!bias, bias ? backend.typeOf(bias) : 'f32')}
${flatMain(`  let j = i % ${param(1)}; let row = i / ${param(1)};
  let r = row % ${param(2)} + ${param(3)}; let bh = row / ${param(2)}; let h = bh % ${param(8)}; let b = bh / ${param(8)};
  let s = scores[i] + biasAt(b, h, r, j); let l = lse[bh * ${param(9)} + r];
  let weight = select(exp(s - l), 0.0, s <= ${HIDDEN / 2} || !isFinite(l));
  p[i] = weight;
  ds[i] = weight * (dp[i] - delta[bh * ${param(9)} + r]);`)}`,
    inputs: [
      { name: 'scores', of: given.scores },
      { name: 'dp', of: given.dp },
      { name: 'lse', of: given.lse },
      { name: 'delta', of: given.delta },
      ...biasOperand(bias),
    ],
    outputs: [
      { name: 'p', of: p },
      { name: 'ds', of: ds },
    ],
    params: [count, keys, rows, first, ...biasStrides(bias), heads, queries],
    groups: flatGroups(count),
    flops: 6 * count,
  });
  return { p, ds };
}

interface Gradients {
  dq: Rows;
  dk: Rows;
  dv: Rows;
}

/**
 * dQ, dK and dV for some queries at a time, with the weights recomputed from the log-sum-exp (Dao et al. 2022):
 * dV = P^T dO, dP = dO V^T, dS = P (dP - delta), dQ = scale dS K, dK = scale dS^T Q.
 */
function backward(backend: WebGpuBackend, call: Call, dy: Rows, out: Rows, lse: Info, to: Gradients): void {
  const { q, k, v, scale, shape } = call;
  const { batch, heads, queries, keys, dim, valueDim } = shape;
  const delta = rowProducts(backend, call, dy, out);
  const most = rowsAtATime(shape);
  for (let first = 0; first < queries; first += most) {
    const rows = Math.min(most, queries - first);
    const accumulate = first > 0;
    const common = { kernel: call.kernel, batch, heads };
    const [qRows, dyRows] = [from(q, first), from(dy, first)];
    const [scores, dp] = [0, 1].map(() => backend.empty([batch, heads, rows, keys], 'float32')) as [Info, Info];
    const qk = { a: column(qRows), b: turned(k), c: scoreRows(scores) };
    stridedProduct(backend, { ...common, ...qk, rows, columns: keys, depth: dim, scale });
    const dyV = { a: column(dyRows), b: turned(v), c: scoreRows(dp) };
    stridedProduct(backend, { ...common, ...dyV, rows, columns: keys, depth: valueDim });
    const { p, ds } = scoreGradients(backend, call, { scores, dp, lse, delta }, first, rows);
    const dq = { a: column(scoreRows(ds)), b: column(k), c: from(to.dq, first) };
    stridedProduct(backend, { ...common, ...dq, rows, columns: dim, depth: keys, scale });
    const dk = { a: turned(scoreRows(ds)), b: column(qRows), c: to.dk };
    stridedProduct(backend, { ...common, ...dk, rows: keys, columns: dim, depth: rows, scale, accumulate });
    const dv = { a: turned(scoreRows(p)), b: column(dyRows), c: to.dv };
    stridedProduct(backend, { ...common, ...dv, rows: keys, columns: valueDim, depth: rows, accumulate });
    for (const info of [scores, dp, p, ds]) {
      backend.disposeInfo(info);
    }
  }
  backend.disposeInfo(delta);
}

/** The three parts of [B, N, 3 * heads * d]. */
function unpacked(qkv: Info, heads: number): [Rows, Rows, Rows] {
  const whole = rowsOf(qkv, heads);
  const each = qkv.shape[2]! / 3;
  return [0, 1, 2].map((i) => ({ ...whole, head: each / heads, offset: i * each })) as [Rows, Rows, Rows];
}

function packedCall(name: string, qkv: Info, bias: Info | undefined, attrs: { scale: number; heads: number }): Call {
  const { scale, heads } = attrs;
  const [q, k, v] = unpacked(qkv, heads);
  const [batch, tokens, channels] = qkv.shape as [number, number, number];
  const dim = channels / 3 / heads;
  const shape = { batch, heads, queries: tokens, keys: tokens, dim, valueDim: dim };
  return { kernel: name, q, k, v, bias, scale, shape };
}

function plainCall(name: string, inputs: Record<string, Info>, attrs: { scale: number; heads: number }): Call {
  const heads = inputs.q!.shape.length === 4 ? inputs.q!.shape[1]! : attrs.heads;
  const [q, k, v] = ['q', 'k', 'v'].map((key) => rowsOf(inputs[key]!, heads)) as [Rows, Rows, Rows];
  const shape = shapeOf(inputs.q!, inputs.k!, inputs.v!, heads);
  return { kernel: name, q, k, v, bias: inputs.bias, scale: attrs.scale, shape };
}

/** The kernels of src/ops/attention: what each computes stands there, beside its composed twin. */
export const attention: KernelDefinition[] = [
  kernel('MemoryEfficientAttention', ({ inputs, backend, attrs }) => {
    const call = plainCall('MemoryEfficientAttention', inputs, attrs);
    const outShape = [...inputs.q!.shape];
    outShape[outShape.length - 1] =
      outShape.length === 4 ? call.shape.valueDim : call.shape.heads * call.shape.valueDim;
    return forward(backend, call, outShape);
  }),
  kernel('MemoryEfficientAttentionPacked', ({ inputs, backend, attrs }) => {
    const qkv = inputs.qkv!;
    const call = packedCall('MemoryEfficientAttentionPacked', qkv, inputs.bias, attrs);
    return forward(backend, call, [qkv.shape[0]!, qkv.shape[1]!, qkv.shape[2]! / 3]);
  }),
  kernel('MemoryEfficientAttentionGrad', ({ inputs, backend, attrs }) => {
    const call = plainCall('MemoryEfficientAttentionGrad', inputs, attrs);
    const { heads } = call.shape;
    const results = ['q', 'k', 'v'].map((key) => backend.empty(inputs[key]!.shape, 'float32'));
    const [dq, dk, dv] = results.map((x) => rowsOf(x, heads)) as [Rows, Rows, Rows];
    backward(backend, call, rowsOf(inputs.dy!, heads), rowsOf(inputs.out!, heads), inputs.lse!, { dq, dk, dv });
    return results;
  }),
  kernel('MemoryEfficientAttentionPackedGrad', ({ inputs, backend, attrs }) => {
    const call = packedCall('MemoryEfficientAttentionPackedGrad', inputs.qkv!, inputs.bias, attrs);
    const { heads } = call.shape;
    const result = backend.empty(inputs.qkv!.shape, 'float32');
    const [dq, dk, dv] = unpacked(result, heads);
    backward(backend, call, rowsOf(inputs.dy!, heads), rowsOf(inputs.out!, heads), inputs.lse!, { dq, dk, dv });
    return result;
  }),
];
