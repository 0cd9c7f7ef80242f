// npm run test:pack: packs the library and this platform's engine, installs both into an empty project outside the
// repository and lets README's program draw there, on the native engine; the picture is compared with Python's
// (test/reference/readme_picture.py).
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { transformSync } from 'esbuild';

const project = realpathSync(mkdtempSync(join(tmpdir(), 'tfjs-diffusers-install-')));
const modules = join(project, 'node_modules');
const platform = `tfjs-diffusers-${process.platform}-${process.arch}`;
const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'));

/** Runs a command; the variables of this repository's tests and npm scripts are not a user's. */
function run(command, args, cwd = project) {
  const own = Object.entries(process.env).filter(([name]) => !/^(TFJS_DIFFUSERS_|npm_(?!config_registry))/.test(name));
  return execFileSync(command, args, { cwd, encoding: 'utf8', env: Object.fromEntries(own) });
}

/** The first program of README, as JavaScript. */
function readmeProgram() {
  const [, code] = /```ts\n([\s\S]*?)```/.exec(readFileSync('README.md', 'utf8'));
  return transformSync(code, { loader: 'ts', format: 'esm' }).code;
}

/** Every library that the engine brings has its licence in the package, and none is a debug build. */
function checkEngine(folder) {
  const notice = readFileSync(join(folder, 'NOTICE'), 'utf8');
  const libraries = readdirSync(folder).filter((name) => /\.so/.test(name));
  assert.ok(libraries.some((name) => name.startsWith('libdnnl.so')));
  for (const name of libraries) {
    const line = notice.split('\n').find((each) => each.startsWith(`${name}:`));
    assert.ok(line, `NOTICE does not name ${name}`);
    for (const [licence] of line.matchAll(/licences\/\S+\.txt/g)) {
      assert.ok(readFileSync(join(folder, licence), 'utf8').length > 1000, `${licence} is no licence`);
    }
  }
  assert.match(readFileSync(join(folder, 'licences', 'dnnl.txt'), 'utf8'), /xbyak/);
  assert.match(readFileSync(join(folder, 'LICENSE'), 'utf8'), /Apache License/);
  for (const name of [...libraries, 'onednn.node']) {
    assert.doesNotMatch(run('readelf', ['--section-headers', join(folder, name)]), /\.debug_info/);
  }
}

try {
  const packed = run('node', [resolve('scripts/pack.mjs'), '--out', project], process.cwd());
  const tarballs = packed.trim().split('\n').slice(-2);
  assert.deepEqual(
    tarballs.map((path) => existsSync(path)),
    [true, true],
  );
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'empty', private: true, type: 'module' }));
  const flags = ['--prefer-offline', '--no-audit', '--no-fund', '--foreground-scripts'];
  const said = run('npm', ['install', ...flags, ...tarballs]);
  assert.doesNotMatch(said, /install scripts|> tfjs-diffusers/, 'nothing of ours runs at installation');

  const manifest = readJson(join(modules, 'tfjs-diffusers', 'package.json'));
  assert.equal(manifest.scripts, undefined);
  assert.equal(manifest.devDependencies, undefined);
  assert.ok(manifest.optionalDependencies[platform]);
  checkEngine(join(modules, platform));

  const found = JSON.parse(run('npx', ['--no-install', 'tfjs-diffusers', 'doctor', '--json']));
  assert.equal(found.automatic, 'onednn');
  assert.match(found.backends.find(({ name }) => name === 'onednn').detail, new RegExp(join(modules, platform)));
  assert.doesNotMatch(found.advice.join('\n'), /build:native|npm run/);

  writeFileSync(join(project, 'draw.js'), readmeProgram());
  run('node', ['draw.js']);
  const pictures = [join(project, 'shapes.png'), 'test/fixtures/readme.png'];
  console.log(run('node', ['scripts/compare_pictures.mjs', ...pictures], process.cwd()).trim());
  console.log('README runs where the packages are installed');
} finally {
  rmSync(project, { recursive: true, force: true });
}
