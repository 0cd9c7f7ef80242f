import { float, type Info, type WebGpuBackend } from '../backend.js';
import { withFunctions } from '../math.js';
import { flatGroups, floatParam, param, rowMain, workgroupReduce } from '../wgsl.js';
import { type KernelDefinition, kernel, sizeOf } from './definition.js';

const LANES = 64;
/** Invocations that normalise; each takes several numbers, so that the statistics are read few times. */
const APPLY = 256;
const VECTORS_PER_LANE = 8;
/** Pieces that a group is cut into for its statistics. */
const MOST_PIECES = 32;
/** Numbers of a piece below which more pieces do not pay. */
const PIECE = 4096;

/**
 * Mean and sum of squared differences of a piece of a group, in two passes: the sum of squares alone loses its digits when
 * the mean is far from 0.
 */
function statisticsCode(subgroups: boolean): string {
  return `${workgroupReduce('sum', LANES, 'add', subgroups)}
${rowMain(
  LANES,
  `  let pixels = ${param(1)}; let channels = ${param(2)}; let each = ${param(3)}; let groupsOf = ${param(4)};
  let pieces = ${param(5)}; let perPiece = ${param(6)};
  let piece = row % pieces; let g = row / pieces % groupsOf; let item = row / pieces / groupsOf;
  let begin = piece * perPiece; let end = min(pixels, begin + perPiece);
  let count = (end - begin) * each;
  let base = (item * pixels + begin) * channels + g * each;
  var total = 0.0;
  for (var j = lane; j < count; j += ${LANES}u) { total += f32(x[base + j / each * channels + j % each]); }
  let mean = sum(total, lane) / f32(count);
  var squares = 0.0;
  for (var j = lane; j < count; j += ${LANES}u) {
    let d = f32(x[base + j / each * channels + j % each]) - mean;
    squares += d * d;
  }
  squares = sum(squares, lane);
  if (lane == 0u) { statistics[row] = vec4<f32>(mean, squares, f32(count), 0.0); }`,
  subgroups,
)}`;
}

/** Joins the pieces' statistics (Chan et al. 1979) and normalises a stretch of one item. */
function normaliseCode(type: string, width: 1 | 4, groups: number, activation: string): string {
  const number = width === 4 ? 'vec4<f32>' : 'f32';
  const out = width === 4 ? `vec4<${type}>` : type;
  const parts = width === 4 ? ['.x', '.y', '.z', '.w'] : [''];
  const moments = parts.map((_, i) => `moments[(c + ${i}u) / each]`);
  const gather = (member: string) =>
    width === 4 ? `vec4(${moments.map((m) => `${m}.${member}`).join(', ')})` : `${moments[0]}.${member}`;
  const end = activation === 'silu' ? (width === 4 ? `vec4(${parts.map((p) => `silu(y${p})`)})` : 'silu(y)') : 'y';
  return `${withFunctions(end)}
var<workgroup> moments: array<vec2<f32>, ${groups}>;
${rowMain(
  APPLY,
  `  let pixels = ${param(1)}; let channels = ${param(2)}; let each = ${param(3)}; let pieces = ${param(5)};
  let stretches = ${param(7)}; let item = row / stretches;
  for (var g = lane; g < ${groups}u; g += ${APPLY}u) {
    var all = statistics[(item * ${groups}u + g) * pieces];
    for (var j = 1u; j < pieces; j++) {
      let next = statistics[(item * ${groups}u + g) * pieces + j];
      let count = all.z + next.z; let d = next.x - all.x;
      all = vec4<f32>(all.x + d * next.z / count, all.y + next.y + d * d * all.z * next.z / count, count, 0.0);
    }
    moments[g] = vec2<f32>(all.x, 1.0 / sqrt(all.y / all.z + ${floatParam(8)}));
  }
  workgroupBarrier();
  let size = pixels * channels / ${width}u;
  let begin = row % stretches * ${APPLY * VECTORS_PER_LANE}u;
  for (var j = begin + lane; j < min(size, begin + ${APPLY * VECTORS_PER_LANE}u); j += ${APPLY}u) {
    let c = j * ${width}u % channels;
    let at = item * size + j;
    let y = (${number}(x[at]) - ${gather('x')}) * ${gather('y')} * ${number}(gamma[c / ${width}u]) + ${number}(beta[c / ${width}u]);
    result[at] = ${out}(${end});
  }`,
)}`;
}

/** Group normalisation with an optional SiLU; see src/ops/group_norm.ts. Two dispatches: statistics, application. */
function groupNorm(
  backend: WebGpuBackend,
  x: Info,
  gamma: Info,
  beta: Info,
  groups: number,
  epsilon: number,
  activation: string,
): Info {
  const type = backend.typeOf(x);
  const result = backend.empty(x.shape, 'float32', type);
  const [items, channels] = [x.shape[0]!, x.shape.at(-1)!];
  if (sizeOf(x) === 0) {
    return result;
  }
  const pixels = sizeOf(x) / items / channels;
  const each = channels / groups;
  const wanted = Math.min(MOST_PIECES, Math.max(1, Math.ceil((pixels * each) / PIECE)));
  const perPiece = Math.ceil(pixels / wanted);
  const pieces = Math.ceil(pixels / perPiece);
  const width = channels % 4 === 0 ? 4 : 1;
  const stretches = Math.ceil((pixels * channels) / width / (APPLY * VECTORS_PER_LANE));
  const rows = items * groups * pieces;
  const statistics = backend.empty([rows, 4], 'float32');
  const params = [pixels, channels, each, groups, pieces, perPiece, stretches, float(epsilon)];
  const { hasSubgroups } = backend.description;
  backend.run({
    kernel: 'GroupNorm',
    key: 'statistics',
    code: () => statisticsCode(hasSubgroups),
    inputs: [{ name: 'x', of: x }],
    outputs: [{ name: 'statistics', of: statistics, width: 4 }],
    params: [rows, ...params],
    groups: flatGroups(rows, 1),
    flops: 4 * sizeOf(x),
  });
  backend.run({
    kernel: 'GroupNorm',
    key: `${groups}${activation}`,
    code: () => normaliseCode(type, width, groups, activation),
    inputs: [
      { name: 'x', of: x, width },
      { name: 'gamma', of: gamma, width },
      { name: 'beta', of: beta, width },
      { name: 'statistics', of: statistics, width: 4 },
    ],
    outputs: [{ name: 'result', of: result, width }],
    params: [items * stretches, ...params],
    groups: flatGroups(items * stretches, 1),
    flops: 8 * sizeOf(x),
  });
  backend.disposeInfo(statistics);
  return result;
}

function layerNormCode(type: string, subgroups: boolean): string {
  return `${workgroupReduce('sum', LANES, 'add', subgroups)}
${rowMain(
  LANES,
  `  let columns = ${param(1)};
  let first = row * columns;
  var total = 0.0;
  for (var j = lane; j < columns; j += ${LANES}u) { total += f32(x[first + j]); }
  let mean = sum(total, lane) / f32(columns);
  var squares = 0.0;
  for (var j = lane; j < columns; j += ${LANES}u) { let d = f32(x[first + j]) - mean; squares += d * d; }
  let factor = 1.0 / sqrt(sum(squares, lane) / f32(columns) + ${floatParam(2)});
  for (var j = lane; j < columns; j += ${LANES}u) {
    result[first + j] = ${type}((f32(x[first + j]) - mean) * factor * f32(gamma[j]) + f32(beta[j]));
  }`,
  subgroups,
)}`;
}

function layerNorm(backend: WebGpuBackend, x: Info, gamma: Info, beta: Info, epsilon: number): Info {
  const type = backend.typeOf(x);
  const result = backend.empty(x.shape, 'float32', type);
  const columns = x.shape.at(-1)!;
  const rows = sizeOf(x) / columns;
  if (sizeOf(x) > 0) {
    backend.run({
      kernel: 'LayerNorm',
      key: '',
      code: () => layerNormCode(type, backend.description.hasSubgroups),
      inputs: [
        { name: 'x', of: x },
        { name: 'gamma', of: gamma },
        { name: 'beta', of: beta },
      ],
      outputs: [{ name: 'result', of: result }],
      params: [rows, columns, float(epsilon)],
      groups: flatGroups(rows, 1),
      flops: 8 * sizeOf(x),
    });
  }
  return result;
}

interface Waves {
  dim: number;
  flipSinToCos: boolean;
  downscaleFreqShift: number;
  scale: number;
  maxPeriod: number;
}

/** exp(-ln(maxPeriod) i / (half - shift)), rounded as torch does; see src/ops/timestep_embedding.ts. */
function frequencies({ dim, downscaleFreqShift, maxPeriod }: Waves): Float32Array {
  const half = Math.floor(dim / 2);
  return Float32Array.from({ length: half }, (_, i) =>
    Math.exp(Math.fround(Math.fround(-Math.log(maxPeriod) * i) / (half - downscaleFreqShift))),
  );
}

/** Sines and cosines of a few timesteps that are still in JavaScript: computed there, exactly. */
function wavesOf(timesteps: ArrayLike<number>, attrs: Waves): Float32Array {
  const [f, half] = [frequencies(attrs), Math.floor(attrs.dim / 2)];
  const result = new Float32Array(timesteps.length * attrs.dim);
  for (let row = 0; row < timesteps.length; row++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(Math.fround(timesteps[row]! * f[i]!) * attrs.scale);
      const at = row * attrs.dim + i;
      result[at + (attrs.flipSinToCos ? half : 0)] = Math.sin(angle);
      result[at + (attrs.flipSinToCos ? 0 : half)] = Math.cos(angle);
    }
  }
  return result;
}

function timestepEmbedding(backend: WebGpuBackend, timesteps: Info, attrs: Waves): Info {
  const { dim, flipSinToCos, scale } = attrs;
  const shape = [sizeOf(timesteps), dim];
  const known = backend.hostValues(timesteps);
  if (known) {
    return backend.makeTensorInfo(shape, 'float32', wavesOf(known as Float32Array, attrs));
  }
  const f = backend.makeTensorInfo([Math.floor(dim / 2)], 'float32', frequencies(attrs));
  const result = backend.empty(shape, 'float32');
  const sine = flipSinToCos ? 'column >= half' : 'column < half';
  backend.run({
    kernel: 'TimestepEmbedding',
    key: `${flipSinToCos}`,
    code: () => `${withFunctions('sinOf( cosOf(')}
${rowMain(
  LANES,
  `  let half = ${param(1)} / 2u;
  for (var column = lane; column < ${param(1)}; column += ${LANES}u) {
    let angle = f32(timesteps[row]) * frequencies[column % half] * ${floatParam(2)};
    result[row * ${param(1)} + column] = select(select(cosOf(angle), sinOf(angle), ${sine}), 0.0, column >= 2u * half);
  }`,
)}`,
    inputs: [
      { name: 'timesteps', of: timesteps },
      { name: 'frequencies', of: f },
    ],
    outputs: [{ name: 'result', of: result }],
    params: [shape[0]!, dim, float(scale)],
    groups: flatGroups(shape[0]!, 1),
  });
  backend.disposeInfo(f);
  return result;
}

export const normalization: KernelDefinition[] = [
  kernel('GroupNorm', ({ inputs, backend, attrs }) => {
    const { x, gamma, beta } = inputs;
    return groupNorm(backend, x!, gamma!, beta!, attrs.groups, attrs.epsilon, attrs.activation);
  }),
  kernel('LayerNorm', ({ inputs, backend, attrs }) =>
    layerNorm(backend, inputs.x!, inputs.gamma!, inputs.beta!, attrs.epsilon),
  ),
  kernel('TimestepEmbedding', ({ inputs, backend, attrs }) => timestepEmbedding(backend, inputs.timesteps!, attrs)),
];
