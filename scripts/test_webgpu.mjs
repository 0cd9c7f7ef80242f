/**
 * `npm run test:webgpu [-- jest arguments]`: the tests of the backend 'webgpu' on GPUs in software, as CI runs them:
 * tfjs-core's own suite and test/webgpu in float32 on SwiftShader (of Debian's package chromium), test/webgpu in float32
 * and float16 on a current lavapipe (scripts/mesa.sh). With TFJS_DIFFUSERS_GPU=1 all of it runs once, on this machine's own
 * GPU.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';
const JEST = [
  ...['--experimental-vm-modules', '--disable-warning=ExperimentalWarning', 'node_modules/jest/bin/jest.js'],
  ...['-c', 'jest.webgpu.config.js', '--runInBand', ...process.argv.slice(2)],
];
const CONFORMANCE = ['test/conformance/run.mjs', '--backend=webgpu'];

function step(title, command, args, env = {}) {
  console.log(`\n== webgpu: ${title} ==`);
  const { status } = spawnSync(command, args, { stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) {
    process.exit(status ?? 1);
  }
}

step('build', 'npm', ['run', '--silent', 'build']);
if (process.env.TFJS_DIFFUSERS_GPU) {
  step("tfjs-core's tests on this machine's GPU", process.execPath, CONFORMANCE);
  step("tests on this machine's GPU", process.execPath, JEST);
  process.exit(0);
}
if (existsSync(SWIFTSHADER)) {
  const env = { VK_ICD_FILENAMES: SWIFTSHADER, XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? tmpdir() };
  step("tfjs-core's tests on SwiftShader", process.execPath, CONFORMANCE, env);
  step('tests on SwiftShader', process.execPath, JEST, env);
} else if (process.env.CI) {
  console.log(`SwiftShader is not there (${SWIFTSHADER}): apt-get install --no-install-recommends chromium libvulkan1`);
  process.exit(1);
}
step('tests on lavapipe', 'scripts/mesa.sh', JEST);
