/**
 * Tests the backend `cuda` without a GPU: the C++ tests, the budgets of the kernels (where NVRTC is installed), tfjs-core's own
 * suite, and this library's tests of native backends, on an emulator. `npm run test:cuda -- all` adds the suite with every tensor in
 * memory of its own, that ends at a page which nobody may touch, and the pictures with 20 steps.
 */
import { spawnSync } from 'node:child_process';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildCuda } from './build_cuda.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const all = process.argv.includes('all');
const failed = [];

function step(name, command, args, env = {}) {
  console.log(`\n== ${name} ==`);
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) failed.push(name);
}

const node = process.execPath;
const built = buildCuda({ tests: true });
const cuda = { TFJS_DIFFUSERS_NATIVE_FOLDER: built.emulated, TFJS_DIFFUSERS_TEST_BACKEND: 'cuda' };
const conformance = ['test/conformance/run.mjs', '--backend=cuda'];

step('kernels and host code on the emulator', built.tests, ['--minimal']);
// Pools and graphs are what this way of making memory does without.
step(
  'the same, every tensor before a guard page',
  built.tests,
  ['--minimal', '-tce=memory*,the limit*,a card*,a graph*'],
  {
    TFJS_DIFFUSERS_CUDA_SEPARATE: '1',
  },
);
step("budgets of the kernels by NVIDIA's compiler", node, ['scripts/cuda_kernels.mjs']);
step('the library', 'npm', ['run', '--silent', 'build']);
step("tfjs-core's own tests", node, conformance, cuda);
if (all)
  step("tfjs-core's own tests, every tensor before a guard page", node, conformance, {
    ...cuda,
    TFJS_DIFFUSERS_CUDA_SEPARATE: '1',
  });
const tests = ['test/backends/fused_kernels.test.ts', 'test/backends/packed_qkv.test.ts', 'test/cuda'];
step('the library on the backend', 'npm', ['run', '--silent', 'unit', '--', '--runInBand', ...tests], {
  ...cuda,
  ...(all && { TFJS_DIFFUSERS_CUDA_ALL: '1' }),
});
console.log(failed.length ? `\nfailed: ${failed.join(', ')}` : '\nall passed');
process.exit(failed.length ? 1 : 0);
