/**
 * npm run mutate: plants the bugs of bugs.mjs, one at a time, in a copy of the repository, runs the tests that should notice and
 * prints the bugs that survive. None may. Options: --only PATTERN takes the bugs whose names or files it fits, --jobs N works on so many at a
 * time, each in a copy of its own.
 */
import { parseArgs } from 'node:util';
import { BUGS } from './bugs.mjs';
import { judge, stopAll } from './judge.mjs';
import { Tree } from './tree.mjs';

const { values: options } = parseArgs({
  options: { only: { type: 'string' }, jobs: { type: 'string', default: '1' } },
});
const jobs = Number(options.jobs);
const only = new RegExp(options.only ?? '', 'i');
const chosen = BUGS.filter(({ name, file }) => only.test(name) || only.test(file));
const queue = [...chosen];
const trees = [];
/** What the tests say without a bug, by their names: each is asked once. */
const clean = new Map();

/** The text with the bug; an entry that does not fit the file any more is an error. */
function mutated(text, { file, from, to }) {
  const count = text.split(from).length - 1;
  if (count !== 1 || from === to) {
    throw new Error(`${file} has ${count} places ${JSON.stringify(from)}, where one is expected: mend the entry`);
  }
  return text.replace(from, () => to);
}

function withoutBug(tree, { file, tests }) {
  const key = JSON.stringify(tests);
  if (!clean.has(key)) {
    clean.set(key, judge(tree, tests, file.startsWith('native/')));
  }
  return clean.get(key);
}

/** { caught | survived | broken } and why. */
async function trial(tree, bug) {
  const text = mutated(tree.read(bug.file), bug);
  const before = await withoutBug(tree, bug);
  if (!before.passed) {
    throw new Error(`its tests do not pass without the bug: ${before.why}`);
  }
  const after = await tree.with(bug, text, () => judge(tree, bug.tests, bug.file.startsWith('native/')));
  if (after.broken) {
    throw new Error(`its tests do not run: ${after.why}`);
  }
  return after.failed ? { verdict: 'caught', why: after.why } : { verdict: 'SURVIVED', why: bug.tests.join(' -t ') };
}

async function work(results) {
  const tree = new Tree();
  trees.push(tree);
  for (let bug = queue.shift(); bug; bug = queue.shift()) {
    const begin = performance.now();
    const result = await trial(tree, bug).catch(({ message }) => ({ verdict: 'BROKEN', why: message }));
    const seconds = Math.round((performance.now() - begin) / 1000);
    console.log(`${result.verdict.padEnd(8)} ${String(seconds).padStart(4)} s  ${bug.name}: ${result.why}`);
    results.push({ ...bug, ...result });
  }
}

process.on('exit', () => {
  stopAll();
  for (const tree of trees) {
    tree.remove();
  }
});
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => process.exit(1));
}
if (chosen.length === 0 || !(jobs >= 1)) {
  console.error(
    chosen.length === 0
      ? `no bug has a name or file like ${options.only}`
      : `--jobs expects a number, got ${options.jobs}`,
  );
  process.exit(2);
}
const results = [];
await Promise.all(Array.from({ length: Math.min(jobs, chosen.length) }, () => work(results)));
const count = (verdict) => results.filter((result) => result.verdict === verdict).length;
console.log(
  `${chosen.length} bugs: ${count('caught')} caught, ${count('SURVIVED')} survived, ${count('BROKEN')} broken entries`,
);
for (const { verdict, name, file } of results.filter((result) => result.verdict !== 'caught')) {
  console.log(`  ${verdict} ${name} (${file})`);
}
process.exit(count('caught') === chosen.length ? 0 : 1);
