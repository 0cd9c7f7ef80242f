/**
 * Tests the backend `cuda` without a GPU: the C++ tests, the budgets of the kernels (where NVRTC is installed), tfjs-core's own
 * suite, and this library's tests of native backends, on an emulator. `npm run test:cuda -- --all` adds the C++ tests and the suite
 * with every tensor in memory of its own, that ends at a page which nobody may touch, the pictures with 20 steps, and every target
 * that the package has images for.
 */
import { spawnSync } from 'node:child_process';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildCuda } from './build_cuda.mjs';
import { PACKED_TARGETS } from './cuda_kernels.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const all = process.argv.includes('--all');
const results = [];

/** Runs one part and goes on after a failure: the end tells of all of them. */
function step(name, run) {
  console.log(`\n== cuda: ${name} ==`);
  const started = performance.now();
  const passed = run();
  results.push({ name, passed, seconds: (performance.now() - started) / 1000 });
}

function program(command, args, env = {}) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  return status === 0;
}

const node = process.execPath;
const conformance = ['test/conformance/run.mjs', '--backend=cuda'];
const separate = { TFJS_DIFFUSERS_CUDA_SEPARATE: '1' };
const tests = ['test/backends/fused_kernels.test.ts', 'test/backends/packed_qkv.test.ts', 'test/cuda'];

let built;
step('build', () => {
  built = buildCuda({ card: true, tests: true });
  return program('npm', ['run', '--silent', 'build']);
});
const cuda = { TFJS_DIFFUSERS_NATIVE_FOLDER: built.emulated, TFJS_DIFFUSERS_TEST_BACKEND: 'cuda' };
step('kernels and host code on the emulator', () => program(built.tests, ['--minimal']));
if (all) {
  // Pools and graphs are what this way of making memory does without.
  const without = '-tce=memory*,the limit*,a card*,a graph*';
  step('the same, every tensor before a guard page', () => program(built.tests, ['--minimal', without], separate));
}
step("budgets of the kernels by NVIDIA's compiler", () =>
  program(node, ['scripts/cuda_kernels.mjs', ...(all ? PACKED_TARGETS : [])]),
);
step("tfjs-core's own tests", () => program(node, conformance, cuda));
if (all) {
  step("tfjs-core's own tests, every tensor before a guard page", () =>
    program(node, conformance, { ...cuda, ...separate }),
  );
}
step('the library on the backend', () =>
  program('npm', ['run', '--silent', 'unit', '--', '--runInBand', ...tests], {
    ...cuda,
    ...(all && { TFJS_DIFFUSERS_CUDA_ALL: '1' }),
  }),
);

console.log('\n== cuda: results ==');
for (const { name, passed, seconds } of results) {
  console.log(`${passed ? 'passed' : 'FAILED'}  ${seconds.toFixed(0).padStart(4)} s  ${name}`);
}
process.exit(results.every(({ passed }) => passed) ? 0 : 1);
