import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmdirSync, rmSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { BackendError } from '../../errors.js';
import { cApi, linkLibraries, unpackWheel } from './libraries.js';
import { nodeApiHeaders, type TfjsNode } from './tfjs_node.js';

/** Where TensorFlow comes from. */
export type Source = { wheel: string } | { libraries: string };

/** What tfjs-node keeps in its own folder: libraries and headers of TensorFlow, and its addon. */
const PARTS = ['deps', 'lib'] as const;
const CHECK = `
  require('util').isNullOrUndefined ??= (x) => x === null || x === undefined;
  const tf = require(process.argv[1]);
  const product = tf.matMul(tf.ones([2, 3]), tf.ones([3, 2])).dataSync();
  if (product.join() !== '3,3,3,3') throw new Error('it computes wrong numbers');
  console.log(tf.backend().binding.TF_Version);
`;

/**
 * Puts an installed tfjs-node on another TensorFlow: its libraries and headers, and an addon built against them from
 * tfjs-node's own sources by the C++ compiler. What was there comes back when anything fails, and when a run before this
 * was stopped in the middle.
 *
 * @returns the version of TensorFlow, as tfjs-node reports it
 * @throws InvalidArgumentError when the source is no TensorFlow; BackendError when the addon cannot be built or does not work
 */
export function install(tfjsNode: TfjsNode, source: Source, log: (line: string) => void): string {
  const stage = join(tfjsNode.folder, '.staged');
  restore(tfjsNode);
  rmSync(stage, { recursive: true, force: true });
  try {
    const deps = join(stage, 'deps');
    log('unpacking TensorFlow');
    const libraries = unpack(source, deps, tfjsNode);
    log("building tfjs-node's addon");
    build(tfjsNode, deps, libraries, join(stage, relative(tfjsNode.folder, tfjsNode.binding)));
    return exchange(tfjsNode, stage);
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
}

function unpack(source: Source, deps: string, tfjsNode: TfjsNode): string[] {
  if ('wheel' in source) {
    unpackWheel(source.wheel, deps, tfjsNode);
    return cApi(deps, source.wheel, 'a Python wheel of TensorFlow');
  }
  linkLibraries(source.libraries, deps);
  return cApi(deps, source.libraries, 'the folder of an unpacked TensorFlow');
}

/** node-gyp would do the same, but fetches the headers of Node first. */
function build({ folder }: TfjsNode, deps: string, libraries: string[], binding: string): void {
  mkdirSync(dirname(binding), { recursive: true });
  const sources = ['tfjs_backend.cc', 'tfjs_binding.cc'].map((name) => join(folder, 'binding', name));
  const compiler = process.env.CXX || 'g++';
  const options = [
    ...['-std=c++17', '-O2', '-shared', '-fPIC', '-w', '-DNAPI_VERSION=8'],
    ...[nodeApiHeaders(), join(deps, 'include'), dirname(folder), folder].map((path) => `-I${path}`),
    ...[...sources, '-o', binding, `-L${join(deps, 'lib')}`],
    ...libraries.map((name) => `-l:${name}`),
    '-Wl,-rpath,$ORIGIN/../../deps/lib',
  ];
  run(compiler, options, `the addon cannot be built by ${compiler}`);
}

function run(command: string, args: string[], problem: string): string {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 26 });
  } catch (error) {
    const { stderr, message, code } = error as { stderr?: string; message: string; code?: string };
    const why = code === 'ENOENT' ? 'it is not installed (apt-get install g++)' : firstError(stderr) || message;
    throw new BackendError(`[tensorflow] ${problem}: ${why}`, { cause: error });
  }
}

const firstError = (text = '') =>
  text
    .split('\n')
    .find((line) => /error/i.test(line))
    ?.trim() ?? '';

const previous = (folder: string, part: string) => join(folder, `.${part}.previous`);

/** Moves the staged parts in, and back out again when the result does not work. */
function exchange(tfjsNode: TfjsNode, stage: string): string {
  const { folder } = tfjsNode;
  for (const part of PARTS) {
    if (existsSync(join(folder, part))) {
      renameSync(join(folder, part), previous(folder, part));
    } else {
      mkdirSync(previous(folder, part));
    }
    renameSync(join(stage, part), join(folder, part));
  }
  try {
    const env = { ...process.env, TF_CPP_MIN_LOG_LEVEL: '3' };
    const version = checkIn(folder, env);
    for (const part of PARTS) {
      rmSync(previous(folder, part), { recursive: true });
    }
    return version;
  } catch (error) {
    restore(tfjsNode);
    throw error;
  }
}

function checkIn(folder: string, env: NodeJS.ProcessEnv): string {
  try {
    const out = execFileSync(process.execPath, ['-e', CHECK, folder], { encoding: 'utf8', stdio: 'pipe', env });
    return out.trim().split('\n').at(-1)!;
  } catch (error) {
    const { stderr, signal } = error as { stderr?: string; signal?: string };
    const why = signal ? `it ends with ${signal}` : firstError(stderr);
    throw new BackendError(`[tensorflow] tfjs-node does not work with this TensorFlow: ${why}`, { cause: error });
  }
}

/** Puts back what a run that did not end has moved aside; an empty folder stands for nothing. */
function restore({ folder }: TfjsNode): void {
  for (const part of PARTS.filter((each) => existsSync(previous(folder, each)))) {
    rmSync(join(folder, part), { recursive: true, force: true });
    renameSync(previous(folder, part), join(folder, part));
    if (readdirSync(join(folder, part)).length === 0) {
      rmdirSync(join(folder, part));
    }
  }
}
