/**
 * `npm run test:tensorflow [-- jest arguments]`: the backend 'tensorflow' on tfjs-node and a current TensorFlow, as a user puts
 * them together: tfjs-node from npm without its install script, `tfjs-diffusers tensorflow --wheel` with the wheel that
 * TFJS_DIFFUSERS_TENSORFLOW_WHEEL names or pip downloads, README's picture by the command line, then the tests on it.
 * Where pip offers no such wheel the suite is skipped, and says so.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const VERSION = '2.21.0';
const TFJS_NODE = '@tensorflow/tfjs-node@4.22.0';
const root = dirname(dirname(fileURLToPath(import.meta.url)));
const work = join(root, 'build', 'tensorflow');
const cli = join(root, 'dist', 'cli', 'main.js');
const tfjsNode = join(work, 'node_modules', '@tensorflow', 'tfjs-node');

function run(command, args, options = {}) {
  return spawnSync(command, args, { stdio: 'inherit', encoding: 'utf8', ...options });
}

function step(title, command, args, options) {
  console.log(`\n== tensorflow: ${title} ==`);
  const { status } = run(command, args, options);
  if (status !== 0) {
    process.exit(status ?? 1);
  }
}

/** The wheel, or why there is none. */
function wheel() {
  const given = process.env.TFJS_DIFFUSERS_TENSORFLOW_WHEEL;
  if (given) {
    return { path: given };
  }
  const find = () =>
    readdirSync(work).find((name) => name.startsWith(`tensorflow_cpu-${VERSION}`) && name.endsWith('.whl'));
  if (!find()) {
    const target = ['--only-binary=:all:', '--python-version', '3.11', '--platform', 'manylinux_2_27_x86_64'];
    const args = ['-m', 'pip', 'download', '-q', '--retries', '0', '--no-deps', ...target, '-d', work];
    const { status, stderr, error } = run('python3', [...args, `tensorflow-cpu==${VERSION}`], { stdio: 'pipe' });
    if (status !== 0) {
      return { reason: error?.message ?? stderr.trim().split('\n').at(-1) };
    }
  }
  return { path: join(work, find()) };
}

/** A wheel that is none leaves tfjs-node as it was. */
function refusesOthers() {
  const before = readdirSync(tfjsNode).sort().join();
  const bad = join(work, 'no_wheel.whl');
  writeFileSync(bad, 'no wheel');
  const { status, stderr } = run(process.execPath, [cli, 'tensorflow', '--wheel', bad], { cwd: work, stdio: 'pipe' });
  rmSync(bad);
  const after = readdirSync(tfjsNode).sort().join();
  if (status !== 1 || !/no_wheel\.whl is no wheel/.test(stderr) || before !== after) {
    console.error(
      `a file that is no wheel: expected one message and nothing changed, got ${status}, ${stderr}, ${after}`,
    );
    process.exit(1);
  }
}

mkdirSync(work, { recursive: true });
const { path, reason } = wheel();
if (!path) {
  console.log(`test:tensorflow is skipped: pip offers no tensorflow-cpu ${VERSION} here (${reason})`);
  process.exit(0);
}
step('build', 'npm', ['run', '--silent', 'build'], { cwd: root });
if (!existsSync(tfjsNode)) {
  writeFileSync(join(work, 'package.json'), '{"private": true}\n');
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  step('tfjs-node', 'npm', ['install', ...quiet, TFJS_NODE], { cwd: work });
}
refusesOthers();
step('the command', process.execPath, [cli, 'tensorflow', '--wheel', path], { cwd: work });
const env = { ...process.env, TF_CPP_MIN_LOG_LEVEL: '3', USE_MEMORY_EFFICIENT_ATTENTION: '1' };
const picture = join(work, 'star.png');
const prompt = 'a large yellow star on a purple background';
const draw = [cli, prompt, '--seed', '0', '--steps', '20', '--backend', 'tensorflow', '--out', picture];
step("README's picture", process.execPath, draw, { cwd: work, env });
step("compared with Python's", process.execPath, [
  join(root, 'scripts', 'compare_pictures.mjs'),
  ...[picture, join(root, 'test', 'fixtures', 'tiny-shapes', 'default.png')],
]);
const jest = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning', 'node_modules/jest/bin/jest.js'];
step('tests', process.execPath, [...jest, '-c', 'jest.tensorflow.config.js', '--runInBand', ...process.argv.slice(2)], {
  cwd: root,
  env: { ...env, NODE_PATH: join(work, 'node_modules'), TFJS_DIFFUSERS_MODEL_BACKEND: 'tensorflow' },
});
