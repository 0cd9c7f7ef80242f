/** Builds and runs the tests of native/: plain, and under AddressSanitizer and UndefinedBehaviourSanitizer (or only those named). */
import { execFileSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildNative } from './build_native.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const chosen = process.argv.slice(2).filter((arg) => !arg.startsWith('-'));
const flavours = chosen.length > 0 ? chosen : ['plain', 'address', 'undefined'];
// libgomp and oneDNN keep their threads and caches until the process ends
const env = {
  ...process.env,
  ASAN_OPTIONS: 'detect_leaks=0:allocator_may_return_null=1',
  UBSAN_OPTIONS: 'print_stacktrace=1',
};
/** What older processors have, for the loops and for oneDNN. */
const ISA = {
  '': {},
  avx2: { TFJS_DIFFUSERS_ISA: 'avx2', ONEDNN_MAX_CPU_ISA: 'AVX2' },
  base: { TFJS_DIFFUSERS_ISA: 'base', ONEDNN_MAX_CPU_ISA: 'SSE41' },
};
for (const flavour of flavours) {
  const sanitize = flavour === 'plain' ? '' : flavour;
  const built = buildNative({ tests: true, sanitize });
  const folder = sanitize ? dirname(built) : join(root, 'build', 'cmake');
  const run = (settings) =>
    execFileSync(join(folder, 'native_tests'), ['--no-version'], {
      stdio: 'inherit',
      env: { ...env, ...settings },
      timeout: 1_800_000,
    });
  for (const isa of ['', ...(sanitize ? [] : ['avx2', 'base'])]) {
    console.log(`native tests, ${flavour}${isa && `, ${isa}`}`);
    run(ISA[isa]);
  }
}
