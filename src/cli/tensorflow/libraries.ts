import { existsSync, mkdirSync, readdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { InvalidArgumentError } from '../../errors.js';
import type { TfjsNode } from './tfjs_node.js';

/** TensorFlow's C API is in the first of these; a Python wheel names it so, the distribution for C the other way. */
const C_API = /^libtensorflow(_cc)?\.so\.2$/;
const LIBRARIES = /^libtensorflow(_cc|_framework)?\.so\.2$/;
/** The headers that tfjs-node's sources reach from tensorflow/c. */
const HEADERS = /^(tensorflow\/c|tensorflow\/core\/platform|tsl|xla\/tsl)\/[\w/.-]+\.h$/;

const expected = (path: string, what: string) =>
  new InvalidArgumentError(
    `[tensorflow] ${path} expects ${what}: libtensorflow_cc.so.2 or libtensorflow.so.2, and its headers`,
  );

/** Puts a file of a wheel under `folder`, or nothing. */
function target(name: string, folder: string): string | undefined {
  const path = /^tensorflow\/(?:include\/)?(.+)$/.exec(name)?.[1] ?? '';
  if (LIBRARIES.test(path)) {
    return join(folder, 'lib', path);
  }
  const isHeader = name.startsWith('tensorflow/include/') && HEADERS.test(path) && !path.includes('..');
  return isHeader ? join(folder, 'include', path) : undefined;
}

/**
 * Unpacks libraries and headers of a Python wheel of TensorFlow into `folder`/{lib,include}.
 *
 * @throws InvalidArgumentError when the file is no such wheel
 */
export function unpackWheel(wheel: string, folder: string, tfjsNode: TfjsNode): void {
  const AdmZip = tfjsNode.require('adm-zip');
  if (!existsSync(wheel)) {
    throw new InvalidArgumentError(`[tensorflow] there is no file ${wheel}`);
  }
  let entries: { entryName: string; getData(): Buffer }[];
  try {
    entries = new AdmZip(wheel).getEntries();
  } catch (error) {
    throw new InvalidArgumentError(`[tensorflow] ${wheel} is no wheel: ${(error as Error).message}`, { cause: error });
  }
  for (const entry of entries) {
    const path = target(entry.entryName, folder);
    if (path) {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, entry.getData());
    }
  }
}

/**
 * Links the libraries and headers of an unpacked TensorFlow, of C's distribution or of a wheel, into `folder`.
 *
 * @throws InvalidArgumentError when they are not there
 */
export function linkLibraries(from: string, folder: string): void {
  const lib = [join(from, 'lib'), from].find(
    (each) => existsSync(each) && readdirSync(each).some((name) => C_API.test(name)),
  );
  const include = join(from, 'include');
  if (!lib || !existsSync(join(include, 'tensorflow', 'c', 'c_api.h'))) {
    throw expected(from, 'the folder of an unpacked TensorFlow');
  }
  mkdirSync(join(folder, 'lib'), { recursive: true });
  symlinkSync(resolve(include), join(folder, 'include'));
  for (const name of readdirSync(lib).filter((each) => LIBRARIES.test(each))) {
    symlinkSync(realpathSync(join(lib, name)), join(folder, 'lib', basename(name)));
  }
}

/** The libraries in `folder`/lib, that with the C API first. */
export function cApi(folder: string, from: string, what: string): string[] {
  const lib = join(folder, 'lib');
  const names = existsSync(lib) ? readdirSync(lib).filter((name) => LIBRARIES.test(name)) : [];
  if (!names.some((name) => C_API.test(name)) || !existsSync(join(folder, 'include', 'tensorflow', 'c', 'c_api.h'))) {
    throw expected(from, what);
  }
  return names.sort((a, b) => Number(C_API.test(b)) - Number(C_API.test(a)));
}
