import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';

interface Manifest {
  bin: Record<string, string>;
  dependencies: Record<string, string>;
  scripts: Record<string, string>;
}

const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as Manifest;
const project = mkdtempSync(join(tmpdir(), 'tfjs-diffusers-pack-'));
const modules = join(project, 'node_modules');
const installed = join(modules, 'tfjs-diffusers');
let packed: string[];

/** Takes a package of this repository as the project's; what that imports in turn is found beside its real place. */
function link(name: string): void {
  mkdirSync(dirname(join(modules, name)), { recursive: true });
  symlinkSync(resolve('node_modules', name), join(modules, name));
}

function run(command: string, args: string[]): { code: number | null; stdout: string; stderr: string } {
  const env = { ...process.env, TFJS_DIFFUSERS_NATIVE: '0', NODE_OPTIONS: '' };
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: project, encoding: 'utf8', env });
  return { code: status, stdout, stderr };
}

/** What `npm install` of the tarball makes, without the network: the package's files, its dependencies and commands. */
beforeAll(() => {
  const arguments_ = ['pack', '--json', '--ignore-scripts', '--pack-destination', project];
  const output = execFileSync('npm', arguments_, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const listing = JSON.parse(output.slice(output.search(/[[{]\s*["{]/)));
  const [{ filename, files }] = Array.isArray(listing) ? listing : Object.values(listing);
  packed = (files as { path: string }[]).map(({ path }) => path);
  mkdirSync(installed, { recursive: true });
  execFileSync('tar', ['-xzf', join(project, filename), '-C', installed, '--strip-components', '1']);
  for (const name of Object.keys(manifest.dependencies)) {
    link(name);
  }
  link('@types/node');
  mkdirSync(join(modules, '.bin'));
  for (const [name, file] of Object.entries(manifest.bin)) {
    chmodSync(join(installed, file), 0o755);
    symlinkSync(join('..', 'tfjs-diffusers', file), join(modules, '.bin', name));
  }
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'empty', private: true }));
});
afterAll(() => rmSync(project, { recursive: true, force: true }));

const DRAW = `
  const pipe = await StableDiffusionPipeline.fromPretrained(TINY_SHAPES, { backend: 'wasm' });
  const { images, seeds } = await pipe('a red star', { seed: 5, numInferenceSteps: 2 });
  await images[0].save(process.argv[2]);
  console.log(images.length, images[0].width, images[0].height, String(seeds[0]));
  pipe.dispose();`;

describe('the packed library', () => {
  test('holds dist, the page, the small checkpoint, README and LICENSE, and runs nothing when installed', () => {
    const strangers = packed.filter((path) => !/^(dist|weights\/(tiny-shapes|clip))\//.test(path));
    expect(strangers.sort()).toEqual(['LICENSE', 'README.md', 'package.json', 'src/server/page/index.html']);
    for (const path of ['dist/index.js', 'dist/index.d.ts', 'dist/cli/main.js', 'dist/tfjs_gradients.js']) {
      expect(packed).toContain(path);
    }
    expect(packed.filter((path) => /\.safetensors$/.test(path))).toHaveLength(3);
    const scripts = Object.keys(manifest.scripts);
    expect(scripts.filter((name) => /^(pre|post)?install$/.test(name))).toEqual([]);
  });

  test('draws the same picture from import and from require', () => {
    writeFileSync(
      join(project, 'draw.mjs'),
      `import { StableDiffusionPipeline, TINY_SHAPES } from 'tfjs-diffusers';\n${DRAW}`,
    );
    writeFileSync(
      join(project, 'draw.cjs'),
      `const { StableDiffusionPipeline, TINY_SHAPES } = require('tfjs-diffusers');\n(async () => {${DRAW}\n})();`,
    );
    const [imported, required] = ['mjs', 'cjs'].map((type) => run(process.execPath, [`draw.${type}`, `${type}.png`]));
    expect(imported).toMatchObject({ code: 0, stdout: '1 64 64 5\n' });
    expect(required).toMatchObject({ code: 0, stdout: '1 64 64 5\n' });
    expect(readFileSync(join(project, 'cjs.png')).equals(readFileSync(join(project, 'mjs.png')))).toBe(true);
  });

  test('has gradients of tfjs ops, which it brings itself', () => {
    const source = `
      import * as tf from '@tensorflow/tfjs-core';
      import { memoryEfficientAttention, pickBackend } from 'tfjs-diffusers';
      await pickBackend('cpu');
      const q = tf.ones([1, 1, 3, 4]);
      const gradient = tf.grad((x) => tf.sum(tf.square(memoryEfficientAttention(x, x, x))))(q);
      console.log(gradient.shape.join());`;
    writeFileSync(join(project, 'gradient.mjs'), source);
    expect(run(process.execPath, ['gradient.mjs'])).toMatchObject({ code: 0, stdout: '1,1,3,4\n' });
  });

  test('has parts that programs import by themselves', () => {
    const source = `
      import * as all from 'tfjs-diffusers';
      import * as backends from 'tfjs-diffusers/backends';
      import * as ops from 'tfjs-diffusers/ops';
      import * as schedulers from 'tfjs-diffusers/schedulers';
      const parts = Object.entries({ ...backends, ...ops, ...schedulers });
      console.log(parts.length > 40, parts.filter(([name, part]) => all[name] !== part).join());`;
    writeFileSync(join(project, 'parts.mjs'), source);
    expect(run(process.execPath, ['parts.mjs'])).toMatchObject({ code: 0, stdout: 'true \n' });
  });

  test('provides the command', () => {
    const args = ['--no-install', 'tfjs-diffusers', 'a blue ring', '--steps', '1', '--out', 'ring.webp', '--quiet'];
    expect(run('npx', [...args, '--backend', 'wasm'])).toMatchObject({ code: 0, stdout: 'ring.webp\n' });
    const { stdout } = run('npx', ['--no-install', 'tfjs-diffusers', 'doctor', '--json']);
    expect(JSON.parse(stdout).model).toBe(join(installed, 'weights', 'tiny-shapes'));
  });

  const PROGRAM = `
    import type { GeneratedImage, StableDiffusionOptions } from 'tfjs-diffusers';
    import { StableDiffusionPipeline } from 'tfjs-diffusers';
    import { pickBackend } from 'tfjs-diffusers/backends';
    import { groupNorm } from 'tfjs-diffusers/ops';
    import { createScheduler, type SchedulerName } from 'tfjs-diffusers/schedulers';
    export { groupNorm, pickBackend, type SchedulerName };
    const options = { seed: 1n, numInferenceSteps: 2 } satisfies StableDiffusionOptions;
    export async function draw(prompt: string): Promise<GeneratedImage> {
      const pipe = await StableDiffusionPipeline.fromPretrained('weights', { backend: 'auto', dtype: 'float32' });
      pipe.scheduler = createScheduler('euler_a', pipe.scheduler.config);
      const { images, seeds } = await pipe(prompt, options);
      const first: bigint | undefined = seeds[0];
      const tensor = (await pipe(prompt, { outputType: 'tensor' })).images;
      const shape: [number, number, number, number] = tensor.shape;
      console.log(first, shape);
      return images[0]!;
    }
    // @ts-expect-error a seed is a number
    export const wrong: StableDiffusionOptions = { seed: 'one' };`;

  test.each([
    ['NodeNext', 'NodeNext', 'module'],
    ['NodeNext', 'NodeNext', 'commonjs'],
    ['ESNext', 'bundler', 'module'],
  ])('is typed for strict programs: module %s, resolution %s, type %s', (module, moduleResolution, type) => {
    const folder = join(project, `typed-${moduleResolution}-${type}`);
    mkdirSync(folder);
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ type }));
    writeFileSync(join(folder, 'draw.ts'), PROGRAM);
    const compilerOptions = {
      target: 'ES2022',
      module,
      moduleResolution,
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      noEmit: true,
      types: ['node'],
      // the declarations of tfjs-core do not compile in strict programs without the DOM
      skipLibCheck: true,
    };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['draw.ts'] }));
    const tsc = resolve('node_modules', 'typescript', 'bin', 'tsc');
    expect(run(process.execPath, [tsc, '-p', folder])).toEqual({ code: 0, stdout: '', stderr: '' });
  });
});
