/**
 * Module hooks that let Node run tfjs-core's own tests: they are ES modules in .js files without extensions in their
 * imports, and import CommonJS packages by names that Node does not see.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';

const require = createRequire(import.meta.url);
const COMMON_JS = new Set(['seedrandom', 'long', 'node-fetch', '@tensorflow/tfjs-core/node_modules/long']);
const modules = new URL('../../node_modules/', import.meta.url).href;
const entry = (name) => new URL(`@tensorflow/${name}/dist/index.js`, modules).href;
const isTfjs = (url) => url?.startsWith(`${modules}@tensorflow/`);

export async function resolve(specifier, context, next) {
  if (specifier === '@tensorflow/tfjs-core') return { url: entry('tfjs-core'), shortCircuit: true };
  if (specifier === '@tensorflow/tfjs-backend-cpu') return { url: entry('tfjs-backend-cpu'), shortCircuit: true };
  if (isTfjs(context.parentURL)) {
    if (COMMON_JS.has(specifier)) return { url: `named-exports:${specifier}`, shortCircuit: true };
    const url = specifier.startsWith('.')
      ? new URL(specifier, context.parentURL).href
      : specifier.startsWith('@tensorflow/')
        ? `${modules}${specifier}`
        : undefined;
    if (url) {
      const found = [url, `${url}.js`, `${url}/index.js`].find(
        (candidate) => candidate.endsWith('.js') && existsSync(fileURLToPath(candidate)),
      );
      if (found) return { url: found, shortCircuit: true };
    }
  }
  return next(specifier, context);
}

export async function load(url, context, next) {
  if (url.startsWith('named-exports:')) {
    const name = url.slice('named-exports:'.length);
    const path = JSON.stringify(pathToFileURL(require.resolve(name)).href);
    const names = Object.keys(require(name)).filter((key) => /^[A-Za-z_]\w*$/.test(key) && key !== 'default');
    const lines = names.map((key) => `export const ${key} = all.${key};`);
    const source = `import all from ${path};\nexport default all;\n${lines.join('\n')}`;
    return { format: 'module', source, shortCircuit: true };
  }
  if (isTfjs(url) && url.endsWith('.js')) {
    return { format: 'module', source: await readFile(fileURLToPath(url), 'utf8'), shortCircuit: true };
  }
  return next(url, context);
}
