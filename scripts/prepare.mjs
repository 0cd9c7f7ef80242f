/** Runs at the end of `npm ci` in the repository: compiles TypeScript and, where that is possible, the native engine. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildNative } from './build_native.mjs';
import { INSTALL_LINE } from './onednn.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const say = (line) => console.log(`tfjs-diffusers: ${line}`);

const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
if (existsSync(tsc)) {
  const compiled = spawnSync('npm', ['run', '--silent', 'build'], { cwd: root, stdio: 'inherit' });
  process.exitCode = compiled.status ?? 1;
} else say('the development tools are not installed, TypeScript is not compiled');

try {
  buildNative({ log: say });
  say('the native engine is ready');
} catch (error) {
  say(`the native engine could not be built, wasm is used instead (${error.message})`);
  say(`to get it: ${INSTALL_LINE}`);
}
