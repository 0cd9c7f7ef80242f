// tfjs-core ships the gradients of its ops as ES modules that Node cannot load (relative imports without extension), and
// its Node build leaves them out. This makes one module of them; tfjs's engine and registries are global, so the bundle
// registers into the same tfjs that everybody else imports.
import { writeFileSync } from 'node:fs';
import { build } from 'esbuild';

await build({
  entryPoints: ['node_modules/@tensorflow/tfjs-core/dist/register_all_gradients.js'],
  outfile: 'dist/tfjs_gradients.js',
  bundle: true,
  format: 'esm',
  platform: 'neutral',
  mainFields: ['module', 'main'],
  target: 'es2022',
  external: ['node-fetch', 'util', 'worker_threads', 'perf_hooks'],
  legalComments: 'eof',
  logLevel: 'error',
});
writeFileSync('dist/tfjs_gradients.d.ts', 'export {};\n');
