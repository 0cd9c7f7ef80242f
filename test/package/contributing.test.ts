import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { nativeTest } from '../support/native.js';

const PAGE = readFileSync('CONTRIBUTING.md', 'utf8');

/** Where each chapter's example goes; the page says the same. */
const FILES = {
  'An attention method': 'src/attention/methods/halves.ts',
  'An op': 'src/ops/squared_relu.ts',
  'A kernel': 'native/cpu/squared_relu.cc',
  'A pipeline': 'src/pipelines/stable_diffusion/pipeline_mirrored.ts',
  'A model': 'src/models/image_projection.ts',
  'A backend': 'src/backends/plain/register.ts',
};

/** The lines that the page asks for beside the files: before which text of which file. */
const LINES: [file: string, before: string, line: string][] = [
  ['src/attention/methods/options.ts', "  'sliced',\n", "  'halves',\n"],
  ['src/attention/methods/registry.ts', '/** How each method', "import { HalvesAttention } from './halves.js';\n\n"],
  ['src/attention/methods/registry.ts', '  sliced: (', '  halves: (options) => new HalvesAttention(options),\n'],
  ['src/ops/index.ts', 'export { layerNorm }', "export { squaredRelu } from './squared_relu.js';\n"],
  ['src/backends/native/kernels/fused.ts', "  direct('GroupNorm'", "  direct('SquaredRelu', ['x']),\n"],
  [
    'src/pipelines/index.ts',
    'export { type StableDiffusionOptions',
    "export { MirroredPipeline } from './stable_diffusion/pipeline_mirrored.js';\n",
  ],
  ['src/models/index.ts', 'export { FeedForward }', "export { ImageProjection } from './image_projection.js';\n"],
  ['src/backends/index.ts', "'webgpu', 'tensorflow'", "'plain', "],
  ['src/backends/index.ts', '/** The tfjs backends', "import { registerPlain } from './plain/register.js';\n\n"],
  ['src/backends/index.ts', "  if (name === 'webgpu')", "  if (name === 'plain') return registerPlain();\n"],
];

let copy: string;

function exampleOf(chapter: string): string {
  const [, text] = PAGE.split(`## ${chapter}\n`);
  return /```(?:ts|cpp)\n([\s\S]*?)```/.exec(text!)![1]!;
}

function addLine([file, before, line]: (typeof LINES)[number]): void {
  const source = readFileSync(join(copy, file), 'utf8');
  if (!source.includes(before)) {
    throw new Error(`${file} has no ${before}`);
  }
  writeFileSync(
    join(copy, file),
    source.replace(before, () => line + before),
  );
}

/** Runs a command in the copy; what it says goes into the error. */
function run(command: string, args: string[]): string {
  try {
    return execFileSync(command, args, { cwd: copy, encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${stdout}${stderr}`);
  }
}

/** A copy of the library with everything that the page adds to it, compiled. */
beforeAll(() => {
  mkdirSync('build', { recursive: true });
  copy = mkdtempSync(resolve('build', 'contributing-'));
  cpSync('src', join(copy, 'src'), { recursive: true });
  for (const file of ['package.json', 'tsconfig.json', 'tsconfig.build.json']) {
    cpSync(file, join(copy, file));
  }
  for (const file of ['tfjs_gradients.js', 'tfjs_gradients.d.ts']) {
    cpSync(join('dist', file), join(copy, 'dist', file));
  }
  for (const [chapter, file] of Object.entries(FILES)) {
    mkdirSync(dirname(join(copy, file)), { recursive: true });
    writeFileSync(join(copy, file), exampleOf(chapter));
  }
  for (const line of LINES) {
    addLine(line);
  }
});

afterAll(() => rmSync(copy, { recursive: true }));

test("CONTRIBUTING's chapters name the places of their examples", () => {
  for (const [chapter, file] of Object.entries(FILES)) {
    expect(PAGE.split(`## ${chapter}\n`)[1]!.split('```')[0]!).toContain(`\`${file}\``);
  }
});

test("CONTRIBUTING's examples have no errors of types and do what they say", () => {
  run(process.execPath, [resolve('node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json']);
  const check = join(copy, 'check.mjs');
  cpSync('test/package/contributing_check.mjs', check);
  expect(run(process.execPath, [check, resolve('weights/tiny-shapes')])).toBe('all examples work\n');
});

test("biome formats CONTRIBUTING's examples in the same way", () => {
  const files = Object.values(FILES).filter((file) => file.endsWith('.ts'));
  const read = () => files.map((file) => readFileSync(join(copy, file), 'utf8'));
  const before = read();
  cpSync('biome.json', join(copy, 'biome.json'));
  const settings = JSON.parse(readFileSync('biome.json', 'utf8')) as { files?: unknown };
  writeFileSync(join(copy, 'biome.json'), JSON.stringify({ ...settings, root: true, files: undefined }));
  run(resolve('node_modules/.bin/biome'), ['check', '--write', ...files]);
  expect(read()).toEqual(before);
});

/** Runs the kernel on numbers of each type that a tensor is stored as. */
const KERNEL_PROGRAM = `
#include "cpu/squared_relu.cc"
#include <cstdio>
using namespace td;
int main() {
  register_squared_relu(Registry::instance());
  const Shape shape{2, 3};
  Tensor x = Tensor::empty(DType::f32, shape);
  const float numbers[] = {-1, 0, 0.5, 1, 2, 3};
  for (int i = 0; i < 6; ++i) x.mutable_data<float>()[i] = numbers[i];
  for (DType type : {DType::f32, DType::bf16, DType::f16}) {
    Call call;
    call.inputs.push_back(as_type(x, type));
    Registry::instance().run(Registry::instance().find("SquaredRelu"), call);
    const Tensor y = as_type(call.outputs[0], DType::f32);
    for (int i = 0; i < 6; ++i) std::printf("%g ", y.data<float>()[i]);
    std::printf("%s\\n", call.outputs[0].dtype() == type ? "same type" : "other type");
  }
}
`;

nativeTest("CONTRIBUTING's kernel compiles and computes", () => {
  const cmake = resolve('build/cmake');
  const cache = readFileSync(join(cmake, 'CMakeCache.txt'), 'utf8');
  const [, library] = /^DNNL_LIBRARY:\w+=(.*)$/m.exec(cache)!;
  writeFileSync(
    join(copy, 'kernel.cc'),
    `namespace td { class Registry; void register_squared_relu(Registry&); }${KERNEL_PROGRAM}`,
  );
  const includes = ['-I', join(copy, 'native'), '-I', resolve('native')];
  const objects = run('find', [join(cmake, 'CMakeFiles/td_core.dir'), '-name', '*.o'])
    .trim()
    .split('\n');
  const libraries = [
    join(cmake, 'libtd_cpu.a'),
    library!,
    '-fopenmp',
    `-Wl,--disable-new-dtags,-rpath,${dirname(library!)}`,
  ];
  const warnings = ['-Wall', '-Wextra', '-Werror'];
  run('g++', ['-std=gnu++17', '-O1', ...warnings, ...includes, 'kernel.cc', ...objects, ...libraries, '-o', 'kernel']);
  expect(run(join(copy, 'kernel'), [])).toBe('0 0 0.25 1 4 9 same type\n'.repeat(3));
});
