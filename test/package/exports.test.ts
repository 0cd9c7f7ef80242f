import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { ATTENTION_NAMES } from '../../src/attention/index.js';
import { schedulerNames } from '../../src/schedulers/index.js';
import { PublicApi } from './public_api.js';

type Exports = Record<string, { types: string; default: string; browser?: { types: string } }>;

const { exports } = JSON.parse(readFileSync('package.json', 'utf8')) as { exports: Exports };
const entries = Object.entries(exports).filter(([, entry]) => typeof entry === 'object');
const main = exports['.']!;

/** Where an editor completes a name; `|` is the cursor. */
const PROGRAMS = {
  'scheduler.ts': "import { createScheduler } from '../../dist/index.js';\ncreateScheduler('|');",
  'attention.ts':
    "import type { StableDiffusionPipeline as Pipe } from '../../dist/index.js';\n(0 as never as Pipe).setAttention('|');",
  'option.ts':
    "import { StableDiffusionPipeline as Pipe } from '../../dist/index.js';\nPipe.fromPretrained('x', { attention: '|' });",
  'backend.ts': "import { pickBackend } from '../../dist/index.js';\npickBackend('|');",
};

let api: PublicApi;
beforeAll(() => {
  const declarations = entries.flatMap(([, { types, browser }]) => [types, browser?.types ?? types]);
  api = new PublicApi([...new Set(declarations)], PROGRAMS);
});
afterAll(() => api.close());

const namesOf = (file: string): string[] =>
  api
    .exportsOf(file)
    .map(({ name }) => name)
    .sort();

test('the names that programs can import are those of exports.json; npm run exports notes a change', () => {
  const listed = JSON.parse(readFileSync('test/package/exports.json', 'utf8'));
  expect(Object.fromEntries(entries.map(([path, { types }]) => [path, namesOf(types)]))).toEqual(listed);
});

test("a browser's program can import the same names, and what gives it files and lists the models it keeps", () => {
  const own = ['CachedModel', 'deleteCachedModel', 'listCachedModels', 'mountFiles'];
  expect(namesOf(main.browser!.types)).toEqual([...namesOf(main.types), ...own].sort());
});

test('what a subpath exports, the library exports as well, but for the server, which browsers have no use for', () => {
  const all = namesOf(main.types);
  const others = entries
    .filter(([path]) => path !== '.' && path !== './server')
    .flatMap(([, { types }]) => namesOf(types));
  expect(others.length).toBeGreaterThan(50);
  expect(others.filter((name) => !all.includes(name))).toEqual([]);
});

test('every type that an exported declaration names is exported', () => {
  expect(api.unexportedTypes(main.types)).toEqual([]);
});

test('no file of src/ exports what it does not list', () => {
  const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts'));
  expect(files.length).toBeGreaterThan(100);
  expect(files.filter((path) => /export\s+(type\s+)?\*/.test(readFileSync(join('src', path), 'utf8')))).toEqual([]);
});

const completed = (name: keyof typeof PROGRAMS): string[] => api.completionsAt(name, PROGRAMS[name]);

test('editors complete names of schedulers, attention and backends', () => {
  const { classNames, shortNames } = schedulerNames();
  expect(completed('scheduler.ts').sort()).toEqual([...classNames, ...shortNames].sort());
  expect(completed('attention.ts').sort()).toEqual([...ATTENTION_NAMES].sort());
  expect(completed('option.ts').sort()).toEqual([...ATTENTION_NAMES].sort());
  expect(completed('backend.ts')).toEqual(expect.arrayContaining(['auto', 'onednn', 'cuda', 'cpu']));
});
