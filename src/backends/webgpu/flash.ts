import { type ElementType, floatParam, param, typeOf } from './wgsl.js';

/** Queries of a workgroup and keys that it looks at together; both multiples of 8. */
export interface FlashTile {
  rows: number;
  keys: number;
}

export interface FlashInputs {
  /** Of a query and a key, and of a value: multiples of 4. */
  dim: number;
  valueDim: number;
  tile: FlashTile;
  /** Of the tiles of q, k and v; sums are float32. */
  type: 'f32' | 'f16';
  out: ElementType;
  /** How the bias lies in memory, when there is one; float32 comes as bits. */
  bias: ElementType | undefined;
}

const LANES = 64;
/** Heads wider than this keep too many sums in registers. */
const WIDEST = 160;
const TILES: readonly FlashTile[] = [
  { rows: 32, keys: 32 },
  { rows: 32, keys: 16 },
  { rows: 16, keys: 16 },
  { rows: 16, keys: 8 },
  { rows: 8, keys: 8 },
];
/** Far below every score; WGSL may assume that there are no infinities. */
const HIDDEN = -1e30;

/** The largest tile whose queries, keys and scores fit into a workgroup's memory; undefined for heads that are too wide. */
export function flashTile(dim: number, valueDim: number, bytes: number, workgroupBytes: number): FlashTile | undefined {
  if (Math.max(dim, valueDim) > WIDEST) {
    return undefined;
  }
  return TILES.find(({ rows, keys }) => {
    const tiles = rows * dim * bytes + keys * Math.max(dim, valueDim) * bytes;
    return tiles + rows * keys * 4 + rows * 8 <= workgroupBytes;
  });
}

const BASES = { q: 5, k: 9, v: 13, out: 17, bias: 21 } as const;

/** Where a row of an operand lies, in vectors of four. */
const rowAt = (name: keyof typeof BASES, row: string) => {
  const first = BASES[name];
  return `(${param(first)} + b * ${param(first + 1)} + h * ${param(first + 2)} + ${row} * ${param(first + 3)}) / 4u`;
};

function biasCode(bias: ElementType | undefined): string {
  if (!bias) {
    return 'fn biasAt(b: u32, h: u32, r: u32, j: u32) -> f32 { return 0.0; }';
  }
  const first = BASES.bias;
  const at = `b * ${param(first)} + h * ${param(first + 1)} + r * ${param(first + 2)} + j * ${param(first + 3)}`;
  // -Infinity is recognised by its bits
  const value =
    bias === 'f16'
      ? `let x = bias[${at}]; return select(f32(x) * LOG2E, ${HIDDEN}, (bitcast<u32>(vec2<f16>(x, 0.0h)) & 0xffffu) == 0xfc00u);`
      : `let x = bias[${at}]; return select(bitcast<f32>(x) * LOG2E, ${HIDDEN}, x == 0xff800000u);`;
  return `const LOG2E = 1.4426950408889634;
fn biasAt(b: u32, h: u32, r: u32, j: u32) -> f32 { ${value} }`;
}

const each = (count: number, line: (i: number) => string) =>
  Array.from({ length: count }, (_, i) => line(i)).join('\n');

/**
 * Flash attention (Dao et al. 2022): a workgroup takes some queries of one head and walks through all keys. Keys and then
 * values of a block lie in the workgroup's memory, scores are made as a matrix product in registers (`rows / 8` x
 * `keys / 8` per invocation), the output stays in registers. Softmax runs in base 2, in float32.
 */
export function flashCode({ dim, valueDim, tile, type, out, bias }: FlashInputs): string {
  const [d4, v4] = [dim / 4, valueDim / 4];
  const [rowsEach, keysEach] = [tile.rows / 8, tile.keys / 8];
  const columnsEach = Math.ceil(v4 / 8);
  const wide = `vec4<${type}>`;
  return `${biasCode(bias)}
var<workgroup> qTile: array<${wide}, ${tile.rows * d4}>;
var<workgroup> kvTile: array<${wide}, ${tile.keys * Math.max(d4, v4)}>;
var<workgroup> scores: array<f32, ${tile.rows * tile.keys}>;
var<workgroup> factors: array<f32, ${tile.rows}>;
var<workgroup> totals: array<f32, ${tile.rows}>;
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let queries = ${param(0)}; let keys = ${param(1)};
  let b = group.y / ${param(2)}; let h = group.y % ${param(2)};
  let firstRow = group.x * ${tile.rows}u;
  let tx = lane % 8u; let ty = lane / 8u;
  for (var t = lane; t < ${tile.rows * d4}u; t += ${LANES}u) {
    let row = min(firstRow + t / ${d4}u, queries - 1u);
    qTile[t] = ${wide}(q[${rowAt('q', 'row')} + t % ${d4}u]);
  }
${each(rowsEach * columnsEach, (i) => `  var o${i} = vec4<f32>(0.0);`)}
  // kept by the invocations that look after a row each: the largest score so far and the sum of weights
  var top = ${HIDDEN}; var total = 0.0;
  for (var first = 0u; first < keys; first += ${tile.keys}u) {
    let count = min(${tile.keys}u, keys - first);
    workgroupBarrier();
    for (var t = lane; t < ${tile.keys * d4}u; t += ${LANES}u) {
      let row = min(first + t / ${d4}u, keys - 1u);
      kvTile[t] = ${wide}(k[${rowAt('k', 'row')} + t % ${d4}u]);
    }
    workgroupBarrier();
${each(rowsEach * keysEach, (i) => `    var s${i} = 0.0;`)}
    for (var i = 0u; i < ${d4}u; i++) {
${each(rowsEach, (r) => `      let q${r} = vec4<f32>(qTile[(ty + ${8 * r}u) * ${d4}u + i]);`)}
${each(keysEach, (c) => `      let k${c} = vec4<f32>(kvTile[(tx + ${8 * c}u) * ${d4}u + i]);`)}
${each(rowsEach * keysEach, (i) => `      s${i} += dot(q${Math.floor(i / keysEach)}, k${i % keysEach});`)}
    }
${each(rowsEach * keysEach, (i) => {
  const [r, c] = [`ty + ${8 * Math.floor(i / keysEach)}u`, `tx + ${8 * (i % keysEach)}u`];
  const row = `min(firstRow + ${r}, queries - 1u)`;
  const value = `s${i} * ${floatParam(3)} + biasAt(b, h, ${row}, min(first + ${c}, keys - 1u))`;
  return `    scores[(${r}) * ${tile.keys}u + ${c}] = select(${HIDDEN}, ${value}, ${c} < count);`;
})}
    workgroupBarrier();
    if (lane < ${tile.rows}u) {
      let before = top;
      for (var j = 0u; j < ${tile.keys}u; j++) { top = max(top, scores[lane * ${tile.keys}u + j]); }
      let factor = exp2(before - top);
      total *= factor;
      for (var j = 0u; j < ${tile.keys}u; j++) {
        let s = scores[lane * ${tile.keys}u + j];
        let p = select(exp2(s - top), 0.0, s <= ${HIDDEN / 2});
        scores[lane * ${tile.keys}u + j] = p;
        total += p;
      }
      factors[lane] = factor;
    }
    for (var t = lane; t < ${tile.keys * v4}u; t += ${LANES}u) {
      let row = min(first + t / ${v4}u, keys - 1u);
      kvTile[t] = ${wide}(v[${rowAt('v', 'row')} + t % ${v4}u]);
    }
    workgroupBarrier();
${each(rowsEach, (r) => `    let f${r} = factors[ty + ${8 * r}u];`)}
${each(rowsEach * columnsEach, (i) => `    o${i} *= f${Math.floor(i / columnsEach)};`)}
    for (var j = 0u; j < count; j++) {
${each(rowsEach, (r) => `      let p${r} = scores[(ty + ${8 * r}u) * ${tile.keys}u + j];`)}
${each(columnsEach, (c) => `      let v${c} = vec4<f32>(kvTile[j * ${v4}u + min(tx + ${8 * c}u, ${v4 - 1}u)]);`)}
${each(rowsEach * columnsEach, (i) => `      o${i} += p${Math.floor(i / columnsEach)} * v${i % columnsEach};`)}
    }
  }
  if (lane < ${tile.rows}u) {
    totals[lane] = total;
    if (firstRow + lane < queries) {
      let sum = top * 0.6931471805599453 + log(max(total, 1e-37));
      lse[group.y * queries + firstRow + lane] = select(sum, bitcast<f32>(${param(4)}), total == 0.0);
    }
  }
  workgroupBarrier();
${each(rowsEach * columnsEach, (i) => {
  const [r, c] = [8 * Math.floor(i / columnsEach), 8 * (i % columnsEach)];
  return `  if (firstRow + ty + ${r}u < queries && tx + ${c}u < ${v4}u) {
    let sum = totals[ty + ${r}u];
    result[${rowAt('out', `(firstRow + ty + ${r}u)`)} + tx + ${c}u] = ${typeOf({ type: out, width: 4 })}(o${i} * select(1.0 / max(sum, 1e-37), 0.0, sum == 0.0));
  }`;
})}
}`;
}
