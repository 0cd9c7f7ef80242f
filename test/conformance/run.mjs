/**
 * Runs tfjs-core's own test-suite (dist/tests.js of the npm package) against a backend of this library.
 * `npm run conformance -- [--filter=text] [--backend=onednn]`; exits with 1 when a test fails that is not in exclusions.mjs.
 */
import { createRequire, register } from 'node:module';
import { ABSENT_KERNELS, EXCLUSIONS as ALL, REFUSALS } from './exclusions.mjs';

const option = (name, otherwise) =>
  process.argv.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3) ?? otherwise;
const filter = option('filter', '');
const backendName = option('backend', 'onednn');
const EXCLUSIONS = ALL[backendName] ?? [];
const absent = new Set(Object.values(ABSENT_KERNELS[backendName] ?? {}).flat());

register('./hooks.mjs', import.meta.url);
const require = createRequire(import.meta.url);
globalThis.require = require;
const jasmineRequire = require('jasmine-core/lib/jasmine-core/jasmine.js');
const jasmine = jasmineRequire.core(jasmineRequire);
const env = jasmine.getEnv({ suppressLoadErrors: true });
Object.assign(globalThis, jasmineRequire.interface(jasmine, env), { jasmine });

const { registerNative } = await import('../../dist/backends/native/register.js');
const { registerWebGpu } = await import('../../dist/backends/webgpu/register.js');
await import('@tensorflow/tfjs-backend-cpu');
const reason = await (backendName === 'webgpu' ? registerWebGpu() : registerNative(backendName));
if (reason) {
  console.log(`conformance: ${reason}`);
  process.exit(process.env.CI ? 1 : 0);
}
const tfjs = new URL('../../node_modules/@tensorflow/tfjs-core/dist/', import.meta.url);
await import(new URL('register_all_gradients.js', tfjs).href);
await import(new URL('public/chained_ops/register_all_chained_ops.js', tfjs).href);
const { setTestEnvs } = await import(new URL('jasmine_util.js', tfjs).href);
setTestEnvs([{ name: backendName, backendName, flags: {}, isDataSync: backendName !== 'webgpu' }]);
await import(new URL('tests.js', tfjs).href);
// A GPU in software on a busy machine takes long; a test that hangs is for whoever watches to end.
jasmine.DEFAULT_TIMEOUT_INTERVAL = 2 ** 31 - 1;
Error.stackTraceLimit = 12;

const failures = [];
const counts = { passed: 0, failed: 0, excluded: 0 };
const excluded = (name) => EXCLUSIONS.some(({ includes }) => name.includes(includes));
/** Whether a test failed for want of a kernel that is not there, or of a type or layout that is refused. */
const isExpected = (message) =>
  absent.has(/Kernel '(\w+)' not registered/.exec(message)?.[1]) ||
  (REFUSALS[backendName] ?? []).some((refusal) => refusal.message.test(message));
const started = performance.now();

env.configure({
  random: false,
  specFilter: (spec) => {
    const name = spec.getFullName();
    if (filter && !name.includes(filter)) return false;
    if (!excluded(name)) return true;
    counts.excluded++;
    return false;
  },
});
env.clearReporters();
env.addReporter({
  specDone: (result) => {
    if (result.status === 'passed') counts.passed++;
    if (result.status !== 'failed') return;
    if (isExpected(result.failedExpectations[0].message)) {
      counts.excluded++;
      return;
    }
    counts.failed++;
    const { message, stack = '' } = result.failedExpectations[0];
    const at = stack.split('\n').find((line) => line.includes('_test.js')) ?? '';
    failures.push(`${result.fullName}\n    ${message.slice(0, 300)}\n    ${at.trim()}`);
  },
});
await env.execute();
for (const failure of failures) console.log(`FAILED ${failure}`);
for (const { includes, reason } of EXCLUSIONS) if (!reason) console.log(`exclusion without a reason: ${includes}`);
const seconds = ((performance.now() - started) / 1000).toFixed(1);
console.log(
  `conformance of '${backendName}': ${counts.passed} passed, ${counts.failed} failed, ${counts.excluded} excluded (${seconds} s)`,
);
process.exit(counts.failed > 0 || counts.passed === 0 ? 1 : 0);
