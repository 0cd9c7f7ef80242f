import { beforeAll, describe, expect, test } from '@jest/globals';
import { type BuildResult, build, type Message } from 'esbuild';
import type { Platform } from '../../src/platform/types.js';

/** What Node has and a browser has not, as a name that stands alone or as a module. */
const NODE_ONLY = /(?<![.\w$'"`#])(Buffer|process|setImmediate|__dirname|require)\s*[.(]/g;
/** tfjs and its wasm glue ask for Node's modules behind checks of where they run; package.json of theirs says so too. */
const BUILTINS_OF_TFJS = ['fs', 'path', 'os', 'perf_hooks', 'worker_threads', 'util', 'node-fetch', 'string_decoder'];

let result: BuildResult<{ metafile: true; write: false }>;
let errors: Message[] = [];

/** Bundles the library as a page of its user would, and says which of our files cannot be. */
beforeAll(async () => {
  try {
    result = await build({
      stdin: { contents: "export * from 'tfjs-diffusers';", resolveDir: process.cwd() },
      bundle: true,
      format: 'esm',
      platform: 'browser',
      target: 'es2022',
      alias: { 'tfjs-diffusers': './dist/index.browser.js' },
      // tsconfig.json leads to src/, which a user does not have
      tsconfigRaw: {},
      external: BUILTINS_OF_TFJS,
      metafile: true,
      write: false,
      logLevel: 'silent',
    });
  } catch (error) {
    errors = (error as { errors: Message[] }).errors ?? [error as Message];
  }
});

const ours = (): string[] => Object.keys(result.metafile.inputs).filter((path) => path.startsWith('dist/'));

describe('the library bundled for a browser', () => {
  test('imports nothing that only Node has', () => {
    expect(errors.map(({ text, location }) => `${location?.file}: ${text}`)).toEqual([]);
    const imports = ours().flatMap((path) => result.metafile.inputs[path]!.imports.map((each) => [path, each.path]));
    expect(imports.filter(([, name]) => /^node:|^sharp$|platform\/node/.test(name!))).toEqual([]);
    expect(ours()).toContain('dist/platform/browser/index.js');
    expect(ours()).toContain('dist/pipelines/stable_diffusion/pipeline_stable_diffusion.js');
    const packages = Object.keys(result.metafile.inputs).filter((path) => path.includes('node_modules/'));
    expect(packages.filter((path) => path.includes('node_modules/sharp/'))).toEqual([]);
  });

  test('uses no global of Node in what is ours', async () => {
    const { readFile } = await import('node:fs/promises');
    const uses: string[] = [];
    for (const path of ours().filter((file) => !file.endsWith('tfjs_gradients.js'))) {
      const code = (await readFile(path, 'utf8')).replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
      uses.push(...(code.match(NODE_ONLY) ?? []).map((use) => `${path}: ${use}`));
    }
    expect(uses).toEqual([]);
  });

  test('has all that the library has in Node', async () => {
    const [inNode, inBrowser] = await Promise.all([import('../../src/index.js'), exportsOf()]);
    expect(Object.keys(inNode).filter((name) => !inBrowser.includes(name))).toEqual([]);
    expect(inBrowser).toContain('mountFiles');
  });
});

async function exportsOf(): Promise<string[]> {
  return Object.values(result.metafile.outputs)[0]!.exports;
}

test('both sides of the platform have the same parts', async () => {
  const node: Platform = await import('../../src/platform/node/index.js');
  const browser: Platform = await import('../../src/platform/browser/index.js');
  expect(Object.keys(browser).filter((name) => name !== 'mountFiles')).toEqual(Object.keys(node));
});
