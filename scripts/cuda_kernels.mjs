/**
 * The kernels of the backend `cuda` as NVIDIA's own compiler sees them, without a GPU: compiled by NVRTC for given targets, with
 * registers, shared memory and spills of each. `node scripts/cuda_kernels.mjs [sm_80 sm_90a ...]` compares them with the table
 * test/cuda/budgets.json and fails on spills, on warnings and on what exceeds the table (without one, on spills and warnings alone); --write makes the table anew. NVRTC is looked
 * for as the addon does it: TFJS_DIFFUSERS_CUDA_PATH, the system, toolkits, the active Python environment.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { buildCuda } from './build_cuda.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const TABLE = join(root, 'test', 'cuda', 'budgets.json');
/** What the package has images for: machine code of every generation of cards, and PTX for later ones. */
export const PACKED_TARGETS = 'sm_75 sm_80 sm_86 sm_89 sm_90a sm_100 sm_120 compute_80 compute_120'.split(' ');
/** What is compiled when no target is named: the first cards with asynchronous copies, and Hopper. */
const CHECKED_TARGETS = ['sm_80', 'sm_90a'];

/** One kernel in the report of the assembler. */
function parseKernels(text, names, target, source) {
  const kernels = [];
  for (const part of text.split("Compiling entry function '").slice(1)) {
    const name = part.slice(0, part.indexOf("'"));
    const number = (pattern) => Number(pattern.exec(part)?.[1] ?? 0);
    kernels.push({
      kernel: names.get(name) ?? name,
      source,
      target,
      registers: number(/Used (\d+) registers/),
      shared: number(/(\d+) bytes smem/),
      spills: number(/(\d+) bytes spill stores/) + number(/(\d+) bytes spill loads/),
    });
  }
  return kernels;
}

/** What pack_kernels printed, as a list of kernels and the warnings of the compiler. */
export function parseReport(text) {
  const kernels = [];
  const warnings = text.split('\n').filter((line) => /warning/i.test(line));
  for (const part of text.split(/^module /m).slice(1)) {
    const [source, target] = part.split(' ');
    const names = new Map();
    for (const [, lowered, expression] of part.matchAll(/^name (\S+)\t(.*)$/gm)) names.set(lowered, expression);
    kernels.push(...parseKernels(part, names, target, source));
  }
  return { kernels, warnings };
}

/** What pack_kernels prints for one target. */
async function packTarget(packer, target, output) {
  const { stdout } = await promisify(execFile)(packer, [join(root, 'native', 'cuda', 'kernels'), output, target], {
    maxBuffer: 1 << 28,
    encoding: 'utf8',
  });
  return stdout;
}

/**
 * Compiles every kernel that the addon launches, as many targets at once as there are processors.
 *
 * @param output the folder of the images, as the addon reads them
 * @returns {Promise<{ kernels, warnings } | { skipped: string }>} why nothing can be compiled here, where NVRTC is not
 */
export async function packKernels(targets, output) {
  const { packer } = buildCuda({ emulated: false, card: true });
  mkdirSync(output, { recursive: true });
  const waiting = [...targets];
  const texts = [];
  const worker = async () => {
    for (let target = waiting.shift(); target; target = waiting.shift()) {
      texts.push(await packTarget(packer, target, output));
    }
  };
  try {
    await Promise.all(Array.from({ length: availableParallelism() }, worker));
    return parseReport(texts.join(''));
  } catch (error) {
    const message = `${error.stderr ?? ''}`.trim() || error.message;
    if (message.startsWith('kernels cannot be compiled here')) return { skipped: message };
    throw new Error(message);
  }
}

/** What of the kernels breaks the rules: a list of sentences. */
export function checkBudgets({ kernels, warnings }, table) {
  const problems = warnings.map((line) => `the compiler warns: ${line}`);
  for (const { kernel, target, registers, shared, spills } of kernels) {
    const budget = table?.[target]?.[kernel];
    if (spills) problems.push(`${kernel} spills ${spills} bytes for ${target}`);
    if (!table) continue;
    if (!budget)
      problems.push(
        `${kernel} has no budget for ${target}; node scripts/cuda_kernels.mjs --write makes the table anew`,
      );
    else if (registers > budget[0] || shared > budget[1])
      problems.push(
        `${kernel} takes ${registers} registers and ${shared} bytes for ${target}; its budget is ${budget.join(' and ')}`,
      );
  }
  return problems;
}

/** Registers and bytes of static shared memory of every kernel, by target. */
function tableOf(kernels) {
  const table = {};
  for (const { kernel, target, registers, shared } of kernels) {
    table[target] ??= {};
    table[target][kernel] = [registers, shared];
  }
  return table;
}

function writeTable(table) {
  const targets = Object.entries(table).map(([target, kernels]) => {
    const rows = Object.entries(kernels).sort(([a], [b]) => (a < b ? -1 : 1));
    return `  ${JSON.stringify(target)}: {\n${rows.map(([name, [registers, shared]]) => `    ${JSON.stringify(name)}: [${registers}, ${shared}]`).join(',\n')}\n  }`;
  });
  writeFileSync(TABLE, `{\n${targets.join(',\n')}\n}\n`);
}

async function main() {
  const given = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));
  const result = await packKernels(given.length ? given : CHECKED_TARGETS, join(root, 'build', 'cuda', 'images'));
  if (result.skipped) return console.log(`skipped: ${result.skipped}`);
  if (process.argv.includes('--write')) writeTable(tableOf(result.kernels));
  const problems = checkBudgets(result, existsSync(TABLE) ? JSON.parse(readFileSync(TABLE, 'utf8')) : undefined);
  for (const problem of problems) console.log(problem);
  console.log(`${result.kernels.length} kernels compiled, ${problems.length} problems`);
  process.exitCode = problems.length ? 1 : 0;
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) await main();
