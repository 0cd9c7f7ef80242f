/**
 * Puts the native engine and the libraries it needs, with their licences, into npm/<platform>-<arch>/, ready to publish; see
 * npm/README.md.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildNative } from './build_native.mjs';
import { writeLicences } from './licences.mjs';
import { findOneDnn } from './onednn.mjs';

/** Not part of every system; everything else that the addon links is. */
const BUNDLED = /^lib(dnnl|OpenCL|gomp)\.so\.\d+$/;

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const target = join(root, 'npm', `${process.platform}-${process.arch}`);
if (!existsSync(target)) throw new Error(`there is no package for ${process.platform}-${process.arch} in npm/`);

const built = buildNative({ force: true, log: console.log });
for (const name of readdirSync(target)) if (name !== 'package.json') rmSync(join(target, name), { recursive: true });
execFileSync(
  'cmake',
  ['--install', join(root, 'build', 'cmake'), '--prefix', target, '--component', 'onednn', '--strip'],
  { stdio: 'ignore' },
);
const libraries = new Map();
for (const line of execFileSync('ldd', [built], { encoding: 'utf8' }).split('\n')) {
  const [, name, path] = /^\s*(\S+) => (\/\S+)/.exec(line) ?? [];
  if (name && BUNDLED.test(name)) libraries.set(name, path);
}
for (const [name, path] of libraries) copyFileSync(realpathSync(path), join(target, name));
copyFileSync(join(root, 'LICENSE'), join(target, 'LICENSE'));
const documents = [join(dirname(findOneDnn(root).include), 'share', 'doc'), '/usr/share/doc'];
writeLicences(target, [...libraries.keys()], documents);

const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const manifest = join(target, 'package.json');
writeFileSync(manifest, `${JSON.stringify({ ...JSON.parse(readFileSync(manifest, 'utf8')), version }, null, 2)}\n`);

const check = 'const m = { exports: {} }; process.dlopen(m, process.argv[1]); console.log(m.exports.describe());';
execFileSync(process.execPath, ['-e', check, join(target, 'onednn.node')], { stdio: 'inherit' });
console.log(`filled ${target}: ${readdirSync(target).join(', ')}`);
