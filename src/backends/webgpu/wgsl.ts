/** How the numbers of a tensor lie in a buffer. Bools are i32 of 0 and 1. */
export type ElementType = 'f32' | 'f16' | 'i32';

export interface Binding {
  name: string;
  type: ElementType | 'u32';
  /** 4: bound as vectors of four. */
  width: 1 | 4;
  write: boolean;
}

export const bytesOf = (type: ElementType): number => (type === 'f16' ? 2 : 4);

/** The WGSL type of what a binding holds at one index. */
export const typeOf = ({ type, width }: Pick<Binding, 'type' | 'width'>): string =>
  width === 4 ? `vec4<${type}>` : type;

/** The i-th number that a dispatch was given, by its type. */
export const param = (i: number): string => `params[${i >> 2}][${i & 3}]`;
export const intParam = (i: number): string => `i32(${param(i)})`;
export const floatParam = (i: number): string => `bitcast<f32>(${param(i)})`;

const PARAM_VECTORS = 16;

/** What a shader of the adapter's features needs at its top. */
function directives(code: string): string {
  const half = /\bf16\b/.test(code) ? 'enable f16;\n' : '';
  return half + (code.includes('subgroup_id') ? 'enable subgroups;\nrequires subgroup_id;\n' : '');
}

/** A subgroup's place in its workgroup, which functions read. */
const SUBGROUP = `
var<private> subgroupId: u32; var<private> subgroupLane: u32; var<private> subgroupCount: u32;
`;

/** Predicates by bits: WGSL may assume that there are no NaN and no infinities, and compilers do. */
const PREDICATES = `
fn isNan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn isInf(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) == 0x7f800000u; }
fn isFinite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }
`;

/** A whole shader: declarations of the bindings and the given code, which has the entry point `main`. */
export function shader(bindings: readonly Binding[], code: string): string {
  const declared = bindings.map((binding, i) => {
    const access = binding.write ? 'read_write' : 'read';
    return `@group(0) @binding(${i + 1}) var<storage, ${access}> ${binding.name}: array<${typeOf(binding)}>;`;
  });
  const predicates = /\bis(Nan|Inf|Finite)\(/.test(code) ? PREDICATES : '';
  const body = [
    `@group(0) @binding(0) var<uniform> params: array<vec4<u32>, ${PARAM_VECTORS}>;`,
    ...declared,
    predicates,
    code.includes('subgroup_id') ? SUBGROUP : '',
    code,
  ].join('\n');
  return directives(body) + body;
}

/** Invocations of a workgroup where each does one piece of a long list. */
export const FLAT = 64;
const MOST_GROUPS = 65535;

/** Workgroups for `count` invocations in a flat list; long ones take a second dimension. */
export function flatGroups(count: number, size = FLAT): [number, number, number] {
  const groups = Math.max(1, Math.ceil(count / size));
  const y = Math.ceil(groups / MOST_GROUPS);
  return [Math.ceil(groups / y), y, 1];
}

/** An entry point that runs `body` with `i` = 0 .. param(0) - 1. */
export function flatMain(body: string): string {
  return `@compute @workgroup_size(${FLAT})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * ${FLAT}u + lane;
  if (i >= ${param(0)}) { return; }
${body}
}`;
}

/** An entry point of `size` invocations per row: `row` = 0 .. param(0) - 1, `lane` = 0 .. size - 1. */
export function rowMain(size: number, body: string, subgroups = false): string {
  const builtins = subgroups
    ? `, @builtin(subgroup_id) sgId: u32, @builtin(subgroup_invocation_id) sgLane: u32, @builtin(num_subgroups) sgCount: u32`
    : '';
  const kept = subgroups ? 'subgroupId = sgId; subgroupLane = sgLane; subgroupCount = sgCount;' : '';
  return `@compute @workgroup_size(${size})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32${builtins}) {
  let row = group.y * groups.x + group.x;
  if (row >= ${param(0)}) { return; }
  ${kept}
${body}
}`;
}

/**
 * A function that combines one number of every invocation of a workgroup and gives the result to all of them: within
 * subgroups first where the adapter has them, whatever their size, else as a tree. The order is fixed: results repeat.
 */
export function workgroupReduce(name: string, size: number, combine: 'add' | 'max', subgroups: boolean): string {
  const join = (a: string, b: string) => (combine === 'add' ? `${a} + ${b}` : `max(${a}, ${b})`);
  const shared = `${name}Shared`;
  if (!subgroups) {
    return `var<workgroup> ${shared}: array<f32, ${size}>;
fn ${name}(x: f32, lane: u32) -> f32 {
  ${shared}[lane] = x;
  workgroupBarrier();
  for (var half = ${size / 2}u; half > 0u; half = half / 2u) {
    if (lane < half) { ${shared}[lane] = ${join(`${shared}[lane]`, `${shared}[lane + half]`)}; }
    workgroupBarrier();
  }
  let result = ${shared}[0];
  workgroupBarrier();
  return result;
}`;
  }
  return `var<workgroup> ${shared}: array<f32, ${size}>;
fn ${name}(x: f32, lane: u32) -> f32 {
  let whole = ${combine === 'add' ? 'subgroupAdd' : 'subgroupMax'}(x);
  if (subgroupLane == 0u) { ${shared}[subgroupId] = whole; }
  workgroupBarrier();
  var result = ${shared}[0];
  for (var j = 1u; j < subgroupCount; j++) { result = ${join('result', `${shared}[j]`)}; }
  workgroupBarrier();
  return result;
}`;
}
