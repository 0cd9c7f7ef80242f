import { spawnSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

const modified = (path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;

/** Tests of the command line and of the package run what is in dist/: before the tests, it is built when src/ is newer. */
export default function build() {
  const newest = Math.max(
    ...readdirSync('src', { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => modified(join(entry.parentPath, entry.name))),
  );
  const isFresh = () => modified('dist/tfjs_gradients.js') > 0 && modified('dist/cli/main.js') > newest;
  if (isFresh()) {
    return;
  }
  const { stdout, stderr } = spawnSync('npm', ['run', '--silent', 'build'], { encoding: 'utf8' });
  // errors of types do not keep the compiler from writing; they are the business of `npm run types`
  if (!isFresh()) {
    throw new Error(`dist/ could not be built:\n${stdout}${stderr}`);
  }
}
