/**
 * Builds the native addon (native/) into build/native/. Options: --force builds even when nothing changed,
 * --tests and --bench also build the C++ tests and measurements, --sanitize=address|undefined instruments them.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, freemem } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fetchOneDnn, findOneDnn, INSTALL_LINE } from './onednn.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** What the addon is made of; native/cuda has an addon and a script of its own. */
const PARTS = ['napi', 'core', 'cpu'];

function sources(folder) {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}

function fingerprint(oneDnn) {
  const hash = createHash('sha256').update(
    JSON.stringify([process.arch, process.platform, realpathSync(oneDnn.library)]),
  );
  const made = PARTS.flatMap((part) => sources(join(root, 'native', part)));
  for (const file of [...made, join(root, 'native', 'CMakeLists.txt'), fileURLToPath(import.meta.url)]) {
    hash.update(readFileSync(file));
  }
  return hash.digest('hex');
}

function requireTool(name) {
  try {
    execFileSync(name, ['--version'], { stdio: 'ignore' });
  } catch {
    throw new Error(`${name} is not installed`);
  }
}

/** doctest, with which the C++ tests are written, is a header. */
function requireDoctest() {
  try {
    const args = ['-x', 'c++', '-fsyntax-only', '-include', 'doctest/doctest.h', '/dev/null'];
    execFileSync(process.env.CXX ?? 'g++', args, { stdio: 'ignore' });
  } catch {
    throw new Error('doctest is not installed, which the C++ tests need: apt-get install -y doctest-dev');
  }
}

function quiet(command, args, env) {
  try {
    execFileSync(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      maxBuffer: 1 << 28,
      env: { ...process.env, ...env },
    });
  } catch (error) {
    const output = `${error.stdout ?? ''}${error.stderr ?? ''}`.trim().split('\n').slice(-40).join('\n');
    throw new Error(`${command} failed:\n${output || error.message}`);
  }
}

/** oneDNN and what it needs go beside the addon, so that the folder works on its own. */
function copyLibraries(oneDnn, output) {
  if (!oneDnn.local) return;
  const folder = dirname(oneDnn.library);
  for (const name of readdirSync(folder)) {
    if (!/^lib(dnnl|OpenCL)\.so\.\d+$/.test(name)) continue;
    // a new file instead of new contents: a process that runs on the old one keeps it
    rmSync(join(output, name), { force: true });
    copyFileSync(realpathSync(join(folder, name)), join(output, name));
  }
}

/** Makes the folder for CMake; one that came here with a copy of the repository is made anew. */
function freshFolder(work) {
  const cache = join(work, 'CMakeCache.txt');
  if (existsSync(cache) && !readFileSync(cache, 'utf8').includes(`CMAKE_CACHEFILE_DIR:INTERNAL=${work}\n`)) {
    rmSync(work, { recursive: true });
  }
  mkdirSync(work, { recursive: true });
}

/** @returns the path of the addon; throws with the reason when it cannot be built */
export function buildNative({ force = false, tests = false, bench = false, sanitize = '', log = () => {} } = {}) {
  if (process.platform !== 'linux') throw new Error(`no native engine for ${process.platform} yet`);
  if (!existsSync(join(root, 'native', 'CMakeLists.txt'))) throw new Error('native/ is not part of this copy');
  requireTool('cmake');
  requireTool(process.env.CXX ?? 'g++');
  if (tests || sanitize) {
    requireDoctest();
  }
  let oneDnn = findOneDnn(root);
  if (!oneDnn) {
    log('fetching oneDNN (the package libdnnl-dev and what it needs) into .deps/');
    fetchOneDnn(root);
    oneDnn = findOneDnn(root);
  }
  if (!oneDnn) throw new Error('oneDNN was not found');

  const output = join(root, 'build', 'native');
  const addon = join(output, 'onednn.node');
  const stamp = join(output, 'stamp');
  const wanted = fingerprint(oneDnn);
  const extra = tests || bench || sanitize;
  if (!force && !extra && existsSync(addon) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted)
    return addon;

  const napi = createRequire(import.meta.url)('node-api-headers').include_dir;
  const work = join(root, 'build', sanitize ? `cmake-${sanitize}` : 'cmake');
  freshFolder(work);
  mkdirSync(output, { recursive: true });
  log('building the native engine (takes some minutes the first time)');
  const configure = [
    ...['-S', join(root, 'native'), '-B', work, '-DCMAKE_BUILD_TYPE=Release'],
    `-DNODE_API_INCLUDE=${napi}`,
    `-DDNNL_INCLUDE=${oneDnn.include}`,
    `-DDNNL_LIBRARY=${oneDnn.library}`,
    `-DTD_OUTPUT=${sanitize ? work : output}`,
    `-DTD_TESTS=${tests || sanitize ? 'ON' : 'OFF'}`,
    `-DTD_BENCH=${bench ? 'ON' : 'OFF'}`,
    `-DTD_SANITIZE=${sanitize}`,
  ];
  quiet('cmake', configure);
  const jobs = Math.max(1, Math.min(availableParallelism(), Math.floor(freemem() / 1e9)));
  const targets = [
    'onednn',
    ...(tests || sanitize ? ['native_tests'] : []),
    ...(bench ? ['native_bench', 'attention_bench'] : []),
  ];
  // by name: what is built of native/cuda has its own script
  quiet('cmake', ['--build', work, '--parallel', String(jobs), '--target', ...targets]);
  if (sanitize) return join(work, 'native_tests');
  copyLibraries(oneDnn, output);
  writeFileSync(stamp, wanted);
  return addon;
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const has = (flag) => process.argv.includes(flag);
  const sanitize = process.argv.find((arg) => arg.startsWith('--sanitize='))?.slice('--sanitize='.length) ?? '';
  try {
    const built = buildNative({
      force: has('--force'),
      tests: has('--tests'),
      bench: has('--bench'),
      sanitize,
      log: console.log,
    });
    console.log(`${basename(built)}: ${built}`);
  } catch (error) {
    console.error(`${error.message}\nTo install what is missing: ${INSTALL_LINE}`);
    process.exitCode = 1;
  }
}
