/**
 * What is run on a machine with a GPU, in one command and without a network there.
 *
 *     node scripts/gpu_run.mjs pack OUT.tar.xz     Node, the library, the addon, its kernels and references in one archive below 40 MB
 *     tar xf OUT.tar.xz && gpu-run/run RESULTS     there: correctness, tfjs-core's suite, speed, memory
 *
 * Each part has its own limit of time and writes RESULTS/part.json: its status, its seconds, its output, and what it measured. A part that
 * fails or takes too long does not keep the next one from running. `node scripts/gpu_run.mjs run RESULTS --emulator` runs the parts
 * that need no speed on the emulator.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const MOST_BYTES = 40e6;

/** @type {{ name: string, seconds: number, args: string[], emulated: boolean, tool?: string }[]} */
const PARTS = [
  { name: 'describe', seconds: 60, args: ['scripts/gpu_parts.mjs', 'describe'], emulated: true },
  { name: 'correctness', seconds: 300, args: ['scripts/gpu_parts.mjs', 'correctness'], emulated: true },
  {
    name: 'memcheck',
    seconds: 600,
    args: ['scripts/gpu_parts.mjs', 'correctness'],
    emulated: false,
    tool: 'compute-sanitizer',
  },
  { name: 'conformance', seconds: 600, args: ['test/conformance/run.mjs', '--backend=cuda'], emulated: true },
  { name: 'picture', seconds: 300, args: ['scripts/gpu_parts.mjs', 'picture'], emulated: true },
  { name: 'speed', seconds: 600, args: ['scripts/gpu_parts.mjs', 'speed'], emulated: false },
  { name: 'memory', seconds: 120, args: ['scripts/gpu_parts.mjs', 'memory'], emulated: true },
];

/** Runs one part and writes what came of it. */
function runPart(part, results, env) {
  const command = part.tool ?? process.execPath;
  const args = part.tool ? ['--error-exitcode=1', process.execPath, ...part.args] : part.args;
  const started = performance.now();
  const output = join(results, `${part.name}.measured.json`);
  const { status, signal, error, stdout, stderr } = spawnSync(command, args, {
    cwd: root,
    timeout: part.seconds * 1000,
    killSignal: 'SIGKILL',
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: { ...process.env, ...env, TFJS_DIFFUSERS_GPU_OUTPUT: output },
  });
  const seconds = (performance.now() - started) / 1000;
  const outcome =
    error?.code === 'ENOENT'
      ? 'absent'
      : signal
        ? seconds >= part.seconds
          ? 'too long'
          : `killed by ${signal}`
        : status === 0
          ? 'passed'
          : 'failed';
  const measured = existsSync(output) ? JSON.parse(readFileSync(output, 'utf8')) : undefined;
  rmSync(output, { force: true });
  const result = {
    part: part.name,
    outcome,
    seconds,
    limit: part.seconds,
    measured,
    output: `${stdout ?? ''}${stderr ?? ''}`.slice(-20000),
  };
  writeFileSync(join(results, `${part.name}.json`), `${JSON.stringify(result, null, 2)}\n`);
  console.log(`${part.name}: ${outcome}, ${seconds.toFixed(1)} s`);
  return outcome;
}

function run(results, emulated) {
  mkdirSync(results, { recursive: true });
  const env = emulated
    ? { TFJS_DIFFUSERS_NATIVE_FOLDER: join(root, 'build', 'cuda', 'emulated'), TFJS_DIFFUSERS_GPU_SMALL: '1' }
    : {};
  const parts = PARTS.filter((part) => !emulated || part.emulated);
  const outcomes = parts.map((part) => runPart(part, results, env));
  process.exitCode = outcomes.every((outcome) => outcome === 'passed' || outcome === 'absent') ? 0 : 1;
}

/** The packages that the library loads at run time, found by following `dependencies`. */
function packagesOf(names) {
  const found = new Set();
  const visit = (name, from) => {
    const places = [join(from, 'node_modules', name), join(root, 'node_modules', name)];
    const folder = places.find((place) => existsSync(join(place, 'package.json')));
    if (!folder || found.has(folder)) return;
    found.add(folder);
    const { dependencies = {} } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    for (const dependency of Object.keys(dependencies)) visit(dependency, folder);
  };
  for (const name of names) visit(name, root);
  return [...found];
}

const PACKED = [
  'package.json',
  'dist',
  'scripts/gpu_run.mjs',
  'scripts/gpu_parts.mjs',
  'test/conformance',
  'test/fixtures/tiny-shapes',
  'weights/tiny-shapes',
];
const PACKAGES = [
  '@tensorflow/tfjs-core',
  '@tensorflow/tfjs-backend-cpu',
  '@huggingface/tokenizers',
  '@huggingface/hub',
  'jasmine-core',
  'sharp',
  'commander',
  'cli-progress',
];

function pack(archive) {
  const folder = mkdtempSync(join(tmpdir(), 'gpu-run-'));
  try {
    const to = join(folder, 'gpu-run');
    for (const path of PACKED) cpSync(join(root, path), join(to, path), { recursive: true });
    // Maps, types and bundles of packages are not read at run time.
    const wanted = (path) => !/\.(map|d\.ts|d\.cts|d\.mts|md)$|\/(tf-[^/]*|tf-core[^/]*)\.js$|\/src(\/|$)/.test(path);
    for (const path of packagesOf(PACKAGES))
      cpSync(path, join(to, path.slice(root.length + 1)), { recursive: true, dereference: true, filter: wanted });
    cpSync(join(root, 'npm', 'cuda'), join(to, 'node_modules', 'tfjs-diffusers-cuda'), { recursive: true });
    cpSync(process.execPath, join(to, 'node'));
    execFileSync('strip', [join(to, 'node')]);
    writeFileSync(join(to, 'run'), '#!/bin/sh\ncd "$(dirname "$0")" && exec ./node scripts/gpu_run.mjs run "$@"\n');
    chmodSync(join(to, 'run'), 0o755);
    execFileSync('tar', ['-C', folder, '-cf', archive, '--use-compress-program', 'xz -6 -T2', 'gpu-run']);
  } finally {
    rmSync(folder, { recursive: true });
  }
  const { size } = statSync(archive);
  console.log(`${archive}: ${(size / 1e6).toFixed(1)} MB`);
  if (size > MOST_BYTES) throw new Error(`the archive holds more than ${MOST_BYTES / 1e6} MB`);
}

const [command, path] = process.argv.slice(2);
if (command === 'pack' && path) pack(resolve(path));
else if (command === 'run' && path) run(resolve(path), process.argv.includes('--emulator'));
else {
  console.error('usage: gpu_run.mjs pack OUT.tar.xz | run RESULTS [--emulator]');
  process.exitCode = 2;
}
