/**
 * Builds what the backend `cuda` consists of; needs g++ and cmake, no CUDA. Without options the addon on the emulator,
 * build/cuda/emulated/cuda.node. Options: --card builds the addon for GPUs, build/native/cuda.node, its sources beside it, and what
 * packs its kernels; --tests builds the C++ tests, --sanitize=address|undefined instruments them.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, freemem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

function quiet(command, args) {
  try {
    execFileSync(command, args, { stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 28 });
  } catch (error) {
    const output = `${error.stdout ?? ''}${error.stderr ?? ''}`.trim().split('\n').slice(-40).join('\n');
    throw new Error(`${command} failed:\n${output || error.message}`);
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

/** The kernels' sources, which NVRTC compiles where no packed image fits. */
function copySources(to) {
  rmSync(to, { recursive: true, force: true });
  cpSync(join(root, 'native', 'cuda', 'kernels'), to, { recursive: true });
}

/** @returns the paths of what was built; throws with the reason when it cannot be built */
export function buildCuda({ emulated = true, card = false, tests = false, sanitize = '' } = {}) {
  if (process.platform !== 'linux') throw new Error(`the backend cuda is not built for ${process.platform} yet`);
  const napi = createRequire(import.meta.url)('node-api-headers').include_dir;
  const work = join(root, 'build', 'cuda', sanitize ? `cmake-${sanitize}` : 'cmake');
  const output = join(root, 'build', 'cuda');
  freshFolder(work);
  const flag = (on) => (on ? 'ON' : 'OFF');
  quiet('cmake', [
    ...['-S', join(root, 'native', 'cuda'), '-B', work, '-DCMAKE_BUILD_TYPE=Release'],
    ...[`-DNODE_API_INCLUDE=${napi}`, `-DTD_OUTPUT=${output}`, `-DTD_SANITIZE=${sanitize}`],
    ...[`-DTD_EMULATED=${flag(emulated)}`, `-DTD_CARD=${flag(card)}`, `-DTD_TESTS=${flag(tests)}`],
  ]);
  const jobs = Math.max(1, Math.min(availableParallelism(), Math.floor(freemem() / 1e9)));
  quiet('cmake', ['--build', work, '--parallel', String(jobs)]);
  const addon = join(root, 'build', 'native', 'cuda.node');
  if (card) {
    mkdirSync(dirname(addon), { recursive: true });
    cpSync(join(output, 'cuda.node'), addon);
    copySources(join(dirname(addon), 'kernels'));
  }
  return {
    emulated: join(output, 'emulated'),
    addon,
    packer: join(work, 'pack_kernels'),
    tests: join(work, 'cuda_tests'),
  };
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const has = (option) => process.argv.includes(option);
  const sanitize = process.argv.find((arg) => arg.startsWith('--sanitize='))?.slice('--sanitize='.length) ?? '';
  try {
    const built = buildCuda({ emulated: !has('--card'), card: has('--card'), tests: has('--tests'), sanitize });
    console.log(has('--card') ? built.addon : join(built.emulated, 'cuda.node'));
  } catch (error) {
    console.error(error.message);
    process.exit(1);
  }
}
