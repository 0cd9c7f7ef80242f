/**
 * Builds the page: node examples/browser/build.mjs [directory], build/browser unless told. What it writes is static: any web server
 * can serve it, over https or from localhost.
 */
import { cpSync, mkdirSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, '../..');
/** tfjs asks for these behind checks of where it runs. */
const NODE_MODULES = [
  'fs',
  'path',
  'os',
  'perf_hooks',
  'worker_threads',
  'util',
  'node-fetch',
  'string_decoder',
  'crypto',
];

function copyWasm(to) {
  const folder = dirname(
    createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm.wasm'),
  );
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.wasm'))) {
    cpSync(join(folder, name), join(to, name));
  }
}

/** @returns sizes of the scripts in bytes, by name */
export async function buildPage(to) {
  rmSync(to, { recursive: true, force: true });
  const { metafile } = await build({
    entryPoints: ['page.js', 'worker.js'].map((name) => join(here, name)),
    outdir: to,
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    alias: { 'tfjs-diffusers': join(root, 'dist', 'index.browser.js') },
    external: NODE_MODULES,
    tsconfigRaw: {},
    metafile: true,
    logLevel: 'error',
  });
  for (const name of ['index.html', 'style.css']) {
    cpSync(join(here, name), join(to, name));
  }
  copyWasm(join(to, 'wasm'));
  cpSync(join(root, 'weights', 'tiny-shapes'), join(to, 'models', 'tiny-shapes'), { recursive: true });
  return Object.fromEntries(
    Object.entries(metafile.outputs).map(([path, { bytes }]) => [path.split('/').at(-1), bytes]),
  );
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const to = resolve(process.argv[2] ?? join(root, 'build', 'browser'));
  const sizes = await buildPage(to);
  for (const [name, bytes] of Object.entries(sizes)) {
    console.log(`${name} ${(bytes / 1e6).toFixed(2)} MB`);
  }
  console.log(to);
}
