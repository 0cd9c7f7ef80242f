/**
 * npm run exports: after a change of what src/index.ts or the index of a subpath exports, notes the names in the list
 * that the test of the package compares with, and gives the browser's entry the same names.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { API } from 'typescript/unstable/sync';

const LIST = 'test/package/exports.json';
const BROWSER = 'src/index.browser.ts';
const { exports } = JSON.parse(readFileSync('package.json', 'utf8'));
const api = new API({ cwd: process.cwd() });
const { program, checker } = api.updateSnapshot({ openProjects: [resolve('tsconfig.json')] }).getProjects()[0];
const source = (path) => program.getSourceFile(resolve(path));

/** Names of an entry of package.json, sorted. */
function namesOf(entry) {
  const path = entry === '.' ? 'src/index.ts' : `src/${entry.slice(2)}/index.ts`;
  const names = checker.getExportsOfModule(checker.getSymbolAtLocation(source(path))).map(({ name }) => name);
  return names.sort();
}

/** Every name of src/index.ts as an export specifier, `type X` for what is no value. */
function specifiers() {
  const found = [];
  source('src/index.ts').forEachChild(({ exportClause, isTypeOnly }) => {
    for (const { name, isTypeOnly: isType } of exportClause?.elements ?? []) {
      found.push(`${isTypeOnly || isType ? 'type ' : ''}${name.text}`);
    }
  });
  return found;
}

const entries = Object.keys(exports).filter((entry) => entry !== './package.json');
const lists = Object.fromEntries(entries.map((entry) => [entry, namesOf(entry)]));
writeFileSync(LIST, JSON.stringify(lists));
writeFileSync(
  BROWSER,
  `/** The library for browsers, written by \`npm run exports\`: all of it, a way to give it files, and the models it keeps. */
export { ${specifiers().join(', ')} } from './index.js';
export { mountFiles } from './platform/browser/files.js';
export { type CachedModel, deleteCachedModel, listCachedModels } from './platform/browser/hub_cache.js';
`,
);
api.close();
execFileSync('npx', ['biome', 'check', '--write', LIST, BROWSER], { stdio: ['ignore', 'ignore', 'inherit'] });
