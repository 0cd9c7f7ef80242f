/**
 * npm run pack [-- --out DIR]: makes the tarballs that are published, the library and this platform's engine, in out/.
 * The library's package.json goes without scripts and development tools, so that installing it runs nothing.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values } = parseArgs({ options: { out: { type: 'string', default: join(root, 'out') } } });
const out = resolve(values.out);
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

/** Packs a folder and gives the tarball's path. */
function pack(folder) {
  const output = execFileSync('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', out], {
    cwd: folder,
    encoding: 'utf8',
  });
  return join(out, output.trim().split('\n').at(-1));
}

/** The files that package.json lists, beside the package.json that users get. */
function stageLibrary(folder) {
  const { scripts, devDependencies, ...published } = manifest;
  const engines = ['linux-x64', 'linux-arm64'].map((platform) => [`tfjs-diffusers-${platform}`, manifest.version]);
  mkdirSync(folder, { recursive: true });
  for (const path of manifest.files.filter((path) => !path.startsWith('!'))) {
    cpSync(join(root, path), join(folder, path), { recursive: true });
  }
  const packageJson = { ...published, optionalDependencies: Object.fromEntries(engines) };
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(packageJson, null, 2)}\n`);
}

const staged = join(out, 'library');
rmSync(staged, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
execFileSync('npm', ['run', '--silent', 'build'], { cwd: root, stdio: 'inherit' });
stageLibrary(staged);
console.log(pack(staged));
rmSync(staged, { recursive: true });

const platform = join(root, 'npm', `${process.platform}-${process.arch}`);
if (existsSync(platform)) {
  execFileSync(process.execPath, [join(root, 'scripts', 'fill_npm.mjs')], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  console.log(pack(platform));
}
