import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { arch, availableParallelism, cpus, homedir, platform } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { MemoryInfo } from '../types.js';

/** What an addon says of the device that it runs on; devices add facts of their own. */
export interface NativeDescription {
  /** Why nothing can run here; nothing else is told then. */
  problem?: string;
  /** What it runs on, in one line. */
  detail: string;
  /** What would make it faster. */
  advice?: string;
  threads: number;
  [fact: string]: string | number | boolean | readonly number[] | undefined;
}

export type AttributeValue = number | boolean | string | readonly number[] | readonly (readonly number[])[] | undefined;
export type Attributes = Readonly<Record<string, AttributeValue>>;

/** The functions of an addon, as native/napi/addon.cc describes them. */
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
  /** A Float32Array, Int32Array or (bool) Uint8Array. */
  read(handle: number): Promise<Float32Array | Int32Array | Uint8Array>;
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
  /**
   * Adds kernels of the addon to the TensorFlow whose library, at `path`, this process has loaded; only onednn.node has it.
   *
   * @throws Error with TensorFlow's message when it refuses
   */
  registerTensorFlowOps?(path: string): TensorFlowOp[];
}

/** A kernel as an op of TensorFlow, of the same name. */
export interface TensorFlowOp {
  name: string;
  inputs: string[];
  /** The last input, which may be absent. */
  optional?: string;
  outputs: string[];
  attributes: Record<string, 'number' | 'integer' | 'text'>;
}

const require = createRequire(import.meta.url);
const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));

/**
 * Where the addon of the backend `name` may lie: in the folder that TFJS_DIFFUSERS_NATIVE_FOLDER names, and no other when it does;
 * built in the repository; in the package for this platform; in the package of that name.
 */
function candidates(name: string): string[] {
  const file = `${name}.node`;
  const folder = process.env.TFJS_DIFFUSERS_NATIVE_FOLDER;
  if (folder) return [join(folder, file)];
  const paths = [join(ROOT, 'build', 'native', file)];
  for (const owner of [`tfjs-diffusers-${platform()}-${arch()}`, `tfjs-diffusers-${name}`]) {
    try {
      paths.push(join(dirname(require.resolve(`${owner}/package.json`)), file));
    } catch {
      // that optional package is not installed
    }
  }
  return paths;
}

function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'tfjs-diffusers');
}

/** A file that is there when the addon loaded once before, with this processor and this version of Node. */
function proofOf(path: string): string {
  const { size, mtimeMs } = statSync(path);
  const identity = [realpathSync(path), size, mtimeMs, cpus()[0]?.model, process.version].join('|');
  return join(cacheFolder(), `addon-${createHash('sha256').update(identity).digest('hex').slice(0, 24)}`);
}

function loadsInChild(path: string): string {
  try {
    const script = 'const m = { exports: {} }; process.dlopen(m, process.argv[1]); m.exports.describe();';
    execFileSync(process.execPath, ['-e', script, path], { stdio: ['ignore', 'ignore', 'pipe'], timeout: 60_000 });
    return '';
  } catch (error) {
    const { stderr, signal } = error as { stderr?: Buffer; signal?: string };
    const lines = `${stderr ?? ''}`.split('\n');
    return lines.find((line) => /Error: /.test(line))?.trim() ?? `loading it ends with ${signal ?? 'an error'}`;
  }
}

/**
 * Loads the addon in a child process first, where a library that does not fit this machine can do no harm. A success is
 * remembered; a failure may be one of the moment. Returns what went wrong, or ''.
 */
function probe(path: string): string {
  const proof = proofOf(path);
  try {
    if (readFileSync(proof, 'utf8') === 'loads') return '';
  } catch {
    // not probed yet
  }
  const problem = loadsInChild(path);
  if (problem) return problem;
  try {
    mkdirSync(cacheFolder(), { recursive: true });
    writeFileSync(proof, 'loads');
  } catch {
    // without a cache the addon is probed each time
  }
  return '';
}

export type LoadedAddon = { addon: NativeAddon; path: string } | { addon?: undefined; reason: string };

const loaded = new Map<string, LoadedAddon>();

/** The addon of the backend `name`, or why there is none. Loads it once per process. */
export function loadAddon(name: string): LoadedAddon {
  const found = loaded.get(name) ?? load(name);
  loaded.set(name, found);
  return found;
}

function load(name: string): LoadedAddon {
  if (process.env.TFJS_DIFFUSERS_NATIVE === '0') return { reason: 'TFJS_DIFFUSERS_NATIVE=0 turns it off' };
  const reasons: string[] = [];
  for (const path of candidates(name)) {
    if (!existsSync(path)) continue;
    const opened = open(path);
    if (typeof opened !== 'string') return { addon: opened, path };
    reasons.push(opened);
  }
  return { reason: reasons.join('; ') || `the addon ${name}.node is not here: ${howToGet(name)}` };
}

/** The addon of a file, or why it cannot be used. */
function open(path: string): NativeAddon | string {
  const problem = probe(path);
  if (problem) return `${path} does not load here: ${problem}`;
  // Threads that spin long between two kernels take the cores from Node and from other programs; this short, a bfloat16
  // step of Stable Diffusion 1.5 takes as long as with 20 times the spinning, and with none 5 % longer.
  process.env.GOMP_SPINCOUNT ??= '1000';
  const module = { exports: {} as NativeAddon };
  try {
    process.dlopen(module, path);
  } catch (error) {
    return (error as Error).message;
  }
  const { exports: addon } = module;
  const unusable = addon.describe().problem;
  if (unusable) return unusable;
  if (!(Number(process.env.OMP_NUM_THREADS) > 0)) addon.setThreads(availableParallelism());
  return addon;
}

/** In the repository the addon can be built; an installed package has no sources. */
function howToGet(name: string): string {
  const isGpu = name === 'cuda';
  if (existsSync(join(ROOT, 'native', 'CMakeLists.txt'))) {
    return isGpu ? 'run `node scripts/build_cuda.mjs --card`' : 'run `npm run build:native`';
  }
  return `npm install ${isGpu ? `tfjs-diffusers-${name}` : `tfjs-diffusers-${platform()}-${arch()}`}`;
}
