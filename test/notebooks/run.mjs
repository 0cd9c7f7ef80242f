// npm run test:notebooks [-- --update]: runs every notebook from scratch in a tslab kernel and compares its pictures with those stored in it,
// or stores what it made.
// Needs Python with nbclient (Debian: python3-nbclient); PYTHON names another interpreter than python3.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import sharp from 'sharp';

const NOTEBOOKS = 'notebooks';
/** Not one of the development tools: its own TypeScript would take the place of the project's. */
const TSLAB = 'tslab@1.0.22';
const PYTHON = process.env.PYTHON ?? '/usr/bin/python3';
/** Runs the notebook argv[1] in place. */
const EXECUTE = `
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, kernel_name="tslab", allow_errors=True).execute()
nbformat.write(notebook, sys.argv[1])
`;

/** tslab and its kernel in `dir`, as `npm install tslab` and `tslab install` would bring them, but for this run alone. */
function installTslab(dir) {
  writeFileSync(join(dir, 'package.json'), '{"private":true}');
  const quiet = ['--no-audit', '--no-fund', '--ignore-scripts', '--silent', '--prefer-offline'];
  execFileSync('npm', ['install', ...quiet, TSLAB], { cwd: dir, stdio: ['ignore', 'ignore', 'inherit'] });
  const kernel = join(dir, 'kernels', 'tslab');
  mkdirSync(kernel, { recursive: true });
  const tslab = join(dir, 'node_modules', 'tslab', 'bin', 'tslab');
  const argv = [process.execPath, tslab, 'kernel', '--config-path', '{connection_file}'];
  writeFileSync(
    join(kernel, 'kernel.json'),
    JSON.stringify({ argv, display_name: 'TypeScript', language: 'typescript' }),
  );
}

/** Pictures and printed lines of every cell, in order. */
function outputsOf(path) {
  const { cells } = JSON.parse(readFileSync(path, 'utf8'));
  const outputs = cells.flatMap(({ outputs = [] }) => outputs);
  return {
    errors: outputs
      .filter(({ output_type }) => output_type === 'error')
      .map(({ ename, evalue }) => `${ename}: ${evalue}`),
    pictures: outputs.flatMap(({ data }) =>
      data?.['image/png'] ? [Buffer.from([data['image/png']].flat().join(''), 'base64')] : [],
    ),
    text: outputs.flatMap(({ text = '' }) => [text].flat()).join(''),
  };
}

const pixels = (png) => sharp(png).removeAlpha().raw().toBuffer();

/** How many of the numbers of two pictures are more than a level apart, as a share. */
async function difference(a, b) {
  const [x, y] = await Promise.all([pixels(a), pixels(b)]);
  return x.length === y.length ? x.filter((value, i) => Math.abs(value - y[i]) > 1).length / x.length : 1;
}

/** Executes the notebook in a project that has the library installed; returns what is wrong with the result. */
async function check(name, dir) {
  copyFileSync(join(NOTEBOOKS, name), join(dir, name));
  const env = { ...process.env, JUPYTER_PATH: dir };
  const { status, stderr } = spawnSync(PYTHON, ['-c', EXECUTE, name], { cwd: dir, env, encoding: 'utf8' });
  if (status !== 0) {
    return [`nbclient ended with ${status}: ${stderr.trim().split('\n').slice(-5).join('\n')}`];
  }
  if (process.argv.includes('--update')) {
    copyFileSync(join(dir, name), join(NOTEBOOKS, name));
  }
  const [stored, drawn] = [outputsOf(join(NOTEBOOKS, name)), outputsOf(join(dir, name))];
  const wrong = [...drawn.errors];
  if (stored.pictures.length === 0 || stored.pictures.length !== drawn.pictures.length) {
    wrong.push(`expected ${stored.pictures.length} pictures, got ${drawn.pictures.length}`);
  }
  for (const [i, picture] of drawn.pictures.entries()) {
    const share = await difference(stored.pictures[i], picture);
    if (share > 0.001) {
      wrong.push(`picture ${i + 1} differs in ${(share * 100).toFixed(2)} % of its numbers`);
    }
  }
  if (stored.text !== drawn.text) {
    wrong.push(`expected the text ${JSON.stringify(stored.text)}, got ${JSON.stringify(drawn.text)}`);
  }
  return wrong;
}

if (spawnSync(PYTHON, ['-c', 'import nbclient']).status !== 0) {
  console.error(`${PYTHON} has no nbclient; on Debian: apt-get install python3-nbclient`);
  process.exit(1);
}
const dir = mkdtempSync(join(tmpdir(), 'tfjs-diffusers-notebooks-'));
let failed = 0;
try {
  installTslab(dir);
  symlinkSync(resolve('.'), join(dir, 'node_modules', 'tfjs-diffusers'), 'dir');
  const names = readdirSync(NOTEBOOKS).filter((name) => name.endsWith('.ipynb'));
  for (const name of names) {
    const wrong = await check(name, dir);
    console.log(`${wrong.length === 0 ? 'ok  ' : 'FAIL'} ${name}${wrong.map((line) => `\n     ${line}`).join('')}`);
    failed += wrong.length > 0 ? 1 : 0;
  }
  console.log(`${names.length - failed} passed, ${failed} failed`);
} finally {
  rmSync(dir, { recursive: true, force: true });
}
process.exit(failed === 0 ? 0 : 1);
