// Plants one defect at a time in the kernels and sees whether their tests on the emulator notice; needs g++ only.
//   node native/cuda/tests/mutate.mjs [part of a name]
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const tests = dirname(fileURLToPath(import.meta.url));
const native = resolve(tests, '../..');
const folder = mkdtempSync(join(tmpdir(), 'mutate-'));
const compile = (output, ...rest) =>
  spawnSync(
    'g++',
    [
      '-std=c++17',
      '-O1',
      '-march=x86-64-v3',
      '-w',
      '-DTD_CUDA_EMULATED=1',
      `-I${folder}`,
      ...rest,
      '-o',
      output,
      '-lpthread',
    ],
    { encoding: 'utf8' },
  );

/** What the test of a kernel says of the kernels in `folder`. */
function verdict(test) {
  const built = compile(join(folder, 'test'), join(folder, 'cuda/tests', `${test}.cc`), join(folder, 'main.o'));
  if (built.status !== 0) {
    return { broken: built.stderr.split('\n')[0] };
  }
  const run = spawnSync(join(folder, 'test'), [], { encoding: 'utf8', timeout: 300_000, maxBuffer: 1 << 28 });
  const text = `${run.stdout}${run.stderr}`;
  const why = /(\[emulator\][^\n]*)|(SIG\w+[^\n]*)|(ERROR: CHECK[^\n]*)/.exec(text);
  return { found: run.status !== 0, why: why ? why[0] : (run.signal ?? '') };
}

function plant({ name, file, from, to, test }) {
  const path = join(folder, 'cuda/kernels', file);
  const text = readFileSync(path, 'utf8');
  if (!text.includes(from)) {
    return { name, broken: `${file} has no such line` };
  }
  writeFileSync(
    path,
    text.replace(from, () => to),
  );
  const result = verdict(test);
  writeFileSync(path, text);
  return { name, ...result };
}

cpSync(join(native, 'cuda'), join(folder, 'cuda'), { recursive: true });
compile(join(folder, 'main.o'), '-c', join(folder, 'cuda/tests/main.cc'));
const wanted = process.argv[2] ?? '';
const list = JSON.parse(readFileSync(join(tests, 'mutations.json'), 'utf8')).filter(({ name }) =>
  name.includes(wanted),
);
const results = [];
for (const mutation of list) {
  const result = plant(mutation);
  results.push(result);
  console.log(
    `${result.broken ? 'BROKEN' : result.found ? 'found ' : 'MISSED'} ${result.name}: ${result.broken ?? result.why}`,
  );
}
rmSync(folder, { recursive: true });
const found = results.filter((r) => r.found).length;
console.log(`${found} of ${results.length} defects found`);
process.exitCode = found === results.length ? 0 : 1;
