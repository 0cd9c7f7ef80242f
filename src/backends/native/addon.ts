import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { arch, availableParallelism, cpus, homedir, platform } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { MemoryInfo } from '../types.js';

/** What the processor and the engine of the addon are. */
export interface NativeDescription {
  avx2: boolean;
  avx512: boolean;
  avx512Bf16: boolean;
  amx: boolean;
  /** Version of oneDNN. */
  oneDnn: string;
  /** Instruction set of the addon's own loops. */
  loops: string;
  threads: number;
}

export type AttributeValue = number | boolean | string | readonly number[] | readonly (readonly number[])[] | undefined;
export type Attributes = Readonly<Record<string, AttributeValue>>;

/** The addon's functions, as native/addon.cc describes them. */
export interface NativeAddon {
  kernels: string[];
  exchange: Float64Array;
  run(kernel: number, attributes?: Attributes): number;
  create(
    bytes: ArrayBufferView,
    storage: number,
    physical: number,
    shape: readonly number[],
    permutation?: readonly number[],
    weight?: boolean,
  ): number;
  read<T extends ArrayBufferView>(handle: number, target: T): Promise<T>;
  readSync(handle: number, target: ArrayBufferView): void;
  /** Physical type, an index of NATIVE_TYPES. */
  typeOf(handle: number): number;
  dispose(handle: number): void;
  memory(): MemoryInfo;
  resetPeak(): void;
  setMemoryLimit(bytes: number): void;
  trim(): void;
  setThreads(threads: number): void;
  describe(): NativeDescription;
}

const FILE = 'tfjs_diffusers.node';
const require = createRequire(import.meta.url);

/** Where the addon lies: built in the repository, or in the optional package for this platform. */
function candidates(): string[] {
  const root = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
  const paths = [join(root, 'build', 'native', FILE)];
  try {
    paths.push(join(dirname(require.resolve(`tfjs-diffusers-${platform()}-${arch()}/package.json`)), FILE));
  } catch {
    // the optional package is not installed
  }
  return paths;
}

function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'tfjs-diffusers');
}

/**
 * Loads the addon in a child process first, where a library that does not fit this machine can do no harm.
 * The answer is kept per addon, processor and Node version. Returns what went wrong, or ''.
 */
function probe(path: string): string {
  const { size, mtimeMs } = statSync(path);
  const identity = [realpathSync(path), size, mtimeMs, cpus()[0]?.model, process.version].join('|');
  const file = join(cacheFolder(), `addon-${createHash('sha256').update(identity).digest('hex').slice(0, 24)}`);
  try {
    return readFileSync(file, 'utf8');
  } catch {
    // not probed yet
  }
  let problem = '';
  try {
    const script = 'const m = { exports: {} }; process.dlopen(m, process.argv[1]); m.exports.describe();';
    execFileSync(process.execPath, ['-e', script, path], { stdio: ['ignore', 'ignore', 'pipe'], timeout: 60_000 });
  } catch (error) {
    const { stderr, signal } = error as { stderr?: Buffer; signal?: string };
    const lines = `${stderr ?? ''}`.split('\n');
    problem = lines.find((line) => /Error: /.test(line))?.trim() ?? `loading it ends with ${signal ?? 'an error'}`;
  }
  try {
    mkdirSync(cacheFolder(), { recursive: true });
    writeFileSync(file, problem);
  } catch {
    // without a cache the addon is probed each time
  }
  return problem;
}

export type LoadedAddon = { addon: NativeAddon; path: string } | { addon?: undefined; reason: string };

let loaded: LoadedAddon | undefined;

/** The addon, or why there is none. Loads it once per process. */
export function loadAddon(): LoadedAddon {
  loaded ??= load();
  return loaded;
}

function load(): LoadedAddon {
  if (process.env.TFJS_DIFFUSERS_NATIVE === '0') return { reason: 'TFJS_DIFFUSERS_NATIVE=0 turns it off' };
  const reasons: string[] = [];
  for (const path of candidates()) {
    if (!existsSync(path)) continue;
    const problem = probe(path);
    if (problem) {
      reasons.push(`${path} does not load here: ${problem}`);
      continue;
    }
    // Threads that spin long between two kernels take the cores from Node and from other programs; this short, a bfloat16
    // step of Stable Diffusion 1.5 takes as long as with 20 times the spinning, and with none 5 % longer.
    process.env.GOMP_SPINCOUNT ??= '1000';
    const module = { exports: {} as NativeAddon };
    try {
      process.dlopen(module, path);
    } catch (error) {
      reasons.push((error as Error).message);
      continue;
    }
    const threads = Number(process.env.OMP_NUM_THREADS);
    if (!(threads > 0)) module.exports.setThreads(availableParallelism());
    return { addon: module.exports, path };
  }
  const hint = 'run `npm run build:native` in the repository of tfjs-diffusers';
  return { reason: reasons.join('; ') || `the native addon is not built for ${platform()}-${arch()}: ${hint}` };
}
