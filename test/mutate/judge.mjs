import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Tests that a bug keeps from ending are stopped after so long, in milliseconds; no test is called failed because the machine is slow. */
const LONGEST = 1_200_000;
const NATIVE_PROGRAMS = ['native_tests'];

const running = new Set();

/** Ends whatever runs, with all that it has started. */
export function stopAll() {
  for (const { pid } of running) {
    process.kill(-pid, 'SIGKILL');
  }
}

/** Runs a command in a tree to its end: { status, output }; a status of null when it had to be stopped. */
function run(tree, command, args) {
  // what tests keep between runs goes with the tree
  const env = { ...process.env, XDG_CACHE_HOME: join(tree.root, '.cache') };
  const child = spawn(command, args, { cwd: tree.root, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  const timer = setTimeout(() => process.kill(-child.pid, 'SIGKILL'), LONGEST);
  const parts = [];
  child.stdout.on('data', (part) => parts.push(part));
  child.stderr.on('data', (part) => parts.push(part));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => {
      running.delete(child);
      clearTimeout(timer);
      resolve({ status, output: Buffer.concat(parts).toString() });
    });
  });
}

const passed = { passed: true };
const failed = (why) => ({ failed: true, why });
const broken = (why) => ({ broken: true, why });
const lastLines = (text) => text.trim().split('\n').slice(-12).join('\n');

async function build(tree) {
  const { status, output } = await run(tree, process.execPath, ['scripts/build_native.mjs', '--tests']);
  tree.needsBuild = status !== 0;
  return status === 0 ? passed : broken(`native/ cannot be built:\n${lastLines(output)}`);
}

async function runNative(tree, [program, ...filter]) {
  const { status, output } = await run(tree, join(tree.root, 'build/cmake', program), filter);
  const why = /TEST CASE: .*/.exec(output)?.[0] ?? lastLines(output);
  return status === 0 ? passed : failed(status === null ? 'it does not end' : why);
}

/** A test file, and a pattern of the names of its tests that are to run. */
async function runJest(tree, [file, pattern]) {
  const report = join(tree.root, 'report.json');
  rmSync(report, { force: true });
  const { status, output } = await run(tree, process.execPath, [
    ...['--experimental-vm-modules', '--disable-warning=ExperimentalWarning', 'node_modules/jest/bin/jest.js'],
    ...[
      `--testTimeout=${LONGEST}`,
      '--runInBand',
      '--json',
      `--outputFile=${report}`,
      `--cacheDirectory=${join(tree.root, '.jest')}`,
    ],
    ...(pattern ? ['-t', pattern] : []),
    ...['--runTestsByPath', file],
  ]);
  if (status === null) {
    return failed('it does not end');
  }
  return verdict(report, output);
}

function verdict(report, output) {
  let results;
  try {
    results = JSON.parse(readFileSync(report, 'utf8'));
  } catch {
    return failed(`the process ends without a report: ${lastLines(output).split('\n').at(-1)}`);
  }
  const { testResults, numFailedTests, numPassedTests, success } = results;
  if (numFailedTests > 0) {
    const first = testResults.flatMap(({ assertionResults: all }) => all).find((test) => test.status === 'failed');
    return failed(first.fullName);
  }
  if (!success) {
    return broken(lastLines(testResults.map(({ message }) => message).join('\n')));
  }
  return numPassedTests > 0 ? passed : broken('no test ran: the pattern fits none, or what they need is not here');
}

/**
 * What the tests of an entry say of a tree: passed, failed (with the name of a test), or broken, when they could not run.
 *
 * @param tests a jest file and, if not all of it, a pattern of test names; or a native test program and its filter
 */
export async function judge(tree, tests, isNative) {
  const onNative = isNative || NATIVE_PROGRAMS.includes(tests[0]);
  const built = tree.needsBuild || onNative ? await build(tree) : passed;
  if (!built.passed) {
    return built;
  }
  return NATIVE_PROGRAMS.includes(tests[0]) ? runNative(tree, tests) : runJest(tree, tests);
}
