import { withFunctions } from './math.js';
import { type ElementType, param, typeOf } from './wgsl.js';

/** Rows and columns of the result that a workgroup makes; an invocation makes 4 x 4 of them. */
export interface Tile {
  rows: number;
  columns: number;
}

/** Steps of the sum that are in a workgroup's memory at a time. */
const DEPTH = 16;
const LARGE: Tile = { rows: 64, columns: 64 };
const SMALL: Tile = { rows: 32, columns: 32 };
/** Fewer workgroups than this leave parts of a GPU idle: smaller tiles make more of them. */
const BUSY = 256;
/** Of one dispatch: about 50 ms of a GPU that does 1 TFLOP/s. */
const MOST_FLOPS = 5e10;

const tilesOf = (rows: number, columns: number, tile: Tile): number =>
  Math.ceil(rows / tile.rows) * Math.ceil(columns / tile.columns);

export function chooseTile(rows: number, columns: number, batch: number): Tile {
  return tilesOf(rows, columns, LARGE) * batch >= BUSY ? LARGE : SMALL;
}

/** Numbers that every product's shader is given first. */
export const SIZE = { rows: param(0), columns: param(1), depth: param(2) } as const;
const FIRST_ROW = param(3);
/** Parameters of a loader or of the end start here. */
export const OWN_PARAMS = 4;

export interface ProductCode {
  tile: Tile;
  /** Type of the operands' tiles; products and sums are float32. */
  type: 'f32' | 'f16';
  /** fn loadA(batch: u32, row: u32, k: u32) -> vec4<TILE>: four steps of the sum, 0 outside. */
  loadA: string;
  /** fn loadB(batch: u32, k: u32, column: u32) -> vec4<TILE>: four columns, 0 outside. */
  loadB: string;
  /** fn store(batch: u32, row: u32, column: u32, v: vec4<f32>), with `gate: vec4<f32>` at the end when gated. */
  store: string;
  /** A second product with the columns that lie `columns` further on. */
  gated?: boolean;
}

const lines = (count: number, line: (i: number) => string) =>
  Array.from({ length: count }, (_, i) => line(i)).join('\n');

/** The inner loop: four rows times four columns, four steps of the sum. */
function multiply(accumulator: string, tile: string, width: number): string {
  return `${lines(4, (i) => `      let ${tile}${i} = vec4<f32>(${tile}[(s * 4u + ${i}u) * ${width}u + tx]);`)}
${lines(4, (r) => `      ${accumulator}${r} += a${r}.x * ${tile}0 + a${r}.y * ${tile}1 + a${r}.z * ${tile}2 + a${r}.w * ${tile}3;`)}`;
}

/**
 * A matrix product: tiles of both operands go through a workgroup's memory, results stay in registers (as in
 * tfjs-backend-webgpu's and onnxruntime's packed products). The operands may be anything that a function of row and column
 * gives: an image seen as a matrix, three weights side by side.
 */
export function productCode({ tile, type, loadA, loadB, store, gated = false }: ProductCode): string {
  const threads = (tile.rows / 4) * (tile.columns / 4);
  const width = tile.columns / 4;
  const [aSize, bSize] = [(tile.rows * DEPTH) / 4, DEPTH * width];
  const shift = gated ? SIZE.columns : '0u';
  const sums = gated ? ['acc', 'gate'] : ['acc'];
  return `alias TILE = ${type};
${withFunctions(loadA + loadB + store)}
${loadA}
${loadB}
${store}
var<workgroup> aTile: array<vec4<TILE>, ${aSize}>;
var<workgroup> bTile: array<vec4<TILE>, ${bSize}>;
${gated ? `var<workgroup> gTile: array<vec4<TILE>, ${bSize}>;` : ''}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let firstRow = ${FIRST_ROW} + group.y * ${tile.rows}u;
  let firstColumn = group.x * ${tile.columns}u;
  let tx = lane % ${width}u; let ty = lane / ${width}u;
${sums.map((name) => lines(4, (r) => `  var ${name}${r} = vec4<f32>(0.0);`)).join('\n')}
  for (var k = 0u; k < ${SIZE.depth}; k += ${DEPTH}u) {
    for (var t = lane; t < ${aSize}u; t += ${threads}u) {
      aTile[t] = loadA(group.z, firstRow + t / ${DEPTH / 4}u, k + (t % ${DEPTH / 4}u) * 4u);
    }
    for (var t = lane; t < ${bSize}u; t += ${threads}u) {
      bTile[t] = loadB(group.z, k + t / ${width}u, firstColumn + (t % ${width}u) * 4u);
      ${gated ? `gTile[t] = loadB(group.z, k + t / ${width}u, ${shift} + firstColumn + (t % ${width}u) * 4u);` : ''}
    }
    workgroupBarrier();
    for (var s = 0u; s < ${DEPTH / 4}u; s++) {
${lines(4, (r) => `      let a${r} = vec4<f32>(aTile[(ty * 4u + ${r}u) * ${DEPTH / 4}u + s]);`)}
${multiply('acc', 'bTile', width)}
${gated ? multiply('gate', 'gTile', width) : ''}
    }
    workgroupBarrier();
  }
  let row = firstRow + ty * 4u; let column = firstColumn + tx * 4u;
${lines(4, (r) => `  store(group.z, row + ${r}u, column, ${sums.map((name) => `${name}${r}`).join(', ')});`)}
}`;
}

/** One dispatch of a product: from which row on, how many workgroups, how much work. */
export interface ProductPart {
  firstRow: number;
  groups: [number, number, number];
  flops: number;
}

/** A product in dispatches of which none takes long. */
export function productParts(rows: number, columns: number, depth: number, batch: number, tile: Tile): ProductPart[] {
  const perTileRow = 2 * tile.rows * columns * depth * batch;
  const tileRows = Math.ceil(rows / tile.rows);
  const most = Math.min(65535, Math.max(1, Math.floor(MOST_FLOPS / perTileRow)));
  return Array.from({ length: Math.ceil(tileRows / most) }, (_, i) => {
    const count = Math.min(most, tileRows - i * most);
    return {
      firstRow: i * most * tile.rows,
      groups: [Math.ceil(columns / tile.columns), count, batch],
      flops: perTileRow * count,
    };
  });
}

/** What is done with the sums of a product before they are stored. */
export interface Epilogue {
  /** Result as [rows, columns] in vectors of four or number by number. */
  width: 1 | 4;
  type: ElementType;
  bias?: boolean;
  /** Added per picture, rows of that many pixels: WGSL of the number of pixels. */
  timeEmbedding?: string;
  activation?: string;
  residual?: boolean;
  gated?: boolean;
}

/** fn store for row-major results: act(sums + bias + timeEmbedding) + residual, or their gated form. */
export function storeRows(e: Epilogue): string {
  const { width, type } = e;
  const of = width === 4 ? ' / 4u' : '';
  const number = width === 4 ? 'vec4<f32>' : 'f32';
  const bias = (column: string) => `${number}(${biasAt(column, of)})`;
  const body = [
    e.bias ? `y += ${bias('column')};` : '',
    e.bias && e.gated ? `g += ${bias(`(column + ${SIZE.columns})`)};` : '',
    e.timeEmbedding ? `y += ${number}(timeEmbedding[(row / ${e.timeEmbedding} * ${SIZE.columns} + column)${of}]);` : '',
    e.gated ? `y *= ${applied('gelu', 'g', width)};` : '',
    e.activation && e.activation !== 'linear' ? `y = ${applied(e.activation, 'y', width)};` : '',
    e.residual ? `y += ${number}(residual[at]);` : '',
  ].filter((line) => line !== '');
  const gate = e.gated ? `, gate: ${number}` : '';
  const one = `fn storeAt(row: u32, column: u32, v: ${number}${gate}) {
  if (row >= ${SIZE.rows} || column >= ${SIZE.columns}) { return; }
  let at = (row * ${SIZE.columns} + column)${of};
  var y = v;
  ${e.gated ? 'var g = gate;' : ''}
  ${body.join('\n  ')}
  result[at] = ${typeOf({ type, width })}(y);
}`;
  const parts = width === 4 ? [''] : ['.x', '.y', '.z', '.w'];
  const calls = parts.map((part, i) => `storeAt(row, column + ${i}u, v${part}${e.gated ? `, gate${part}` : ''});`);
  return `${one}
fn store(batch: u32, row: u32, column: u32, v: vec4<f32>${e.gated ? ', gate: vec4<f32>' : ''}) {
  ${calls.join('\n  ')}
}`;
}

const biasAt = (column: string, of: string) => `bias[${column}${of}]`;

function applied(name: string, x: string, width: 1 | 4): string {
  return width === 1 ? `${name}(${x})` : `vec4(${[...'xyzw'].map((part) => `${name}(${x}.${part})`).join(', ')})`;
}

/** fn loadA of a row-major matrix `x` [rows, depth]. */
export function loadRows(width: 1 | 4): string {
  return `fn loadA(batch: u32, row: u32, k: u32) -> vec4<TILE> {
  var v = vec4<TILE>(0);
  if (row >= ${SIZE.rows} || k >= ${SIZE.depth}) { return v; }
  let at = row * ${SIZE.depth} + k;
  ${width === 4 ? 'v = vec4<TILE>(x[at / 4u]);' : `for (var i = 0u; i < min(4u, ${SIZE.depth} - k); i++) { v[i] = TILE(x[at + i]); }`}
  return v;
}`;
}

/** fn loadB of a row-major matrix `name` [depth, `columns`]. */
export function loadColumns(width: 1 | 4, columns: string, name = 'weight'): string {
  return `fn loadB(batch: u32, k: u32, column: u32) -> vec4<TILE> {
  var v = vec4<TILE>(0);
  if (k >= ${SIZE.depth} || column >= ${columns}) { return v; }
  let at = k * ${columns} + column;
  ${width === 4 ? `v = vec4<TILE>(${name}[at / 4u]);` : `for (var i = 0u; i < min(4u, ${columns} - column); i++) { v[i] = TILE(${name}[at + i]); }`}
  return v;
}`;
}
