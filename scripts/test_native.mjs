/**
 * Builds and runs the tests of native/: the kernels in C++ and the addon's surface from JavaScript, plain (also with what older processors
 * have), and under AddressSanitizer and UndefinedBehaviourSanitizer; or only the flavours that are named.
 */
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

const run = (command, args, settings) =>
  execFileSync(command, args, { stdio: 'inherit', env: { ...env, ...settings }, timeout: 1_800_000 });

/** AddressSanitizer has to be in a process before anything else. */
function preloaded(flavour) {
  if (flavour !== 'address') {
    return {};
  }
  const library = execFileSync(process.env.CXX ?? 'g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' });
  return { LD_PRELOAD: library.trim() };
}

for (const flavour of flavours) {
  const sanitize = flavour === 'plain' ? '' : flavour;
  const built = buildNative({ tests: true, sanitize });
  const folder = sanitize ? dirname(built) : join(root, 'build', 'cmake');
  for (const isa of ['', ...(sanitize ? [] : ['avx2', 'base'])]) {
    console.log(`native tests, ${flavour}${isa && `, ${isa}`}`);
    run(join(folder, 'native_tests'), ['--no-version'], ISA[isa]);
  }
  console.log(`addon, ${flavour}`);
  const addon = sanitize ? join(folder, 'onednn.node') : built;
  const trials = join(root, 'native', 'test', 'addon_trials.mjs');
  run(process.execPath, ['--expose-gc', trials, addon], preloaded(flavour));
}
