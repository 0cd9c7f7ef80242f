import { describe, test } from '@jest/globals';
import { type BackendName, describeBackends } from '../../src/backends/index.js';
import { loadAddon } from '../../src/backends/native/addon.js';

/** The native backend under test; scripts/test_cuda.mjs names cuda, on its emulator. */
export const NATIVE_BACKEND = (process.env.TFJS_DIFFUSERS_TEST_BACKEND ?? 'onednn') as BackendName;
const { addon, reason } = { reason: undefined, ...loadAddon(NATIVE_BACKEND) };
/** Where the engine was asked for, tests of it fail without it instead of being skipped. */
const run =
  addon !== undefined ||
  process.env.TFJS_DIFFUSERS_TEST_BACKEND !== undefined ||
  process.env.TFJS_DIFFUSERS_REQUIRE_NATIVE === '1';

/** `describe` of what needs the native engine: skipped without it, unless TFJS_DIFFUSERS_REQUIRE_NATIVE=1. */
export const nativeSuite = run ? describe : describe.skip;
/** The same for a single test. */
export const nativeTest = run ? test : test.skip;

/**
 * Those of the backends that work here, for tests that run on each.
 *
 * @throws Error when the native one is asked for, required and does not load
 */
export async function workingBackends(...names: BackendName[]): Promise<BackendName[]> {
  if (run && !addon && names.includes(NATIVE_BACKEND)) {
    throw new Error(`the native engine does not load: ${reason}`);
  }
  const found = (await describeBackends()).filter(({ available }) => available).map(({ name }) => name);
  return names.filter((name) => found.includes(name));
}
