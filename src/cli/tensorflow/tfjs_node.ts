import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { BackendError } from '../../errors.js';
import { PACKAGE_ROOT } from '../package_info.js';

/** Those with the backend 'tensorflow'; where both are installed, that for GPUs is used. */
export const TFJS_NODE = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'] as const;

/** An installed tfjs-node(-gpu). */
export interface TfjsNode {
  name: string;
  version: string;
  folder: string;
  /** Its addon, which the package's own tools would build or download. */
  binding: string;
  /** Resolves what the package itself depends on. */
  require: NodeJS.Require;
}

/**
 * The tfjs-node(-gpu) of the project in which the command runs, or else the one beside this package.
 *
 * @throws BackendError when there is none
 */
export function findTfjsNode(): TfjsNode {
  for (const from of [join(process.cwd(), 'package.json'), join(PACKAGE_ROOT, 'package.json')]) {
    const manifest = TFJS_NODE.map((name) => resolveFrom(from, `${name}/package.json`)).find((path) => path);
    if (manifest) {
      return describe(manifest);
    }
  }
  throw new BackendError(
    `[tensorflow] neither ${TFJS_NODE.join(' nor ')} is installed here; npm install --ignore-scripts @tensorflow/tfjs-node`,
  );
}

function resolveFrom(from: string, name: string): string | undefined {
  try {
    return createRequire(from).resolve(name);
  } catch {
    return undefined;
  }
}

function describe(manifest: string): TfjsNode {
  const require = createRequire(manifest);
  const { name, version } = JSON.parse(readFileSync(manifest, 'utf8')) as { name: string; version: string };
  const binding: string = require('@mapbox/node-pre-gyp').find(manifest);
  return { name, version, folder: dirname(manifest), binding, require };
}

/**
 * Where node_api.h lies: beside Node itself, or in the package node-api-headers.
 *
 * @throws BackendError when it is in neither
 */
export function nodeApiHeaders(): string {
  const beside = join(dirname(dirname(process.execPath)), 'include', 'node');
  if (existsSync(join(beside, 'node_api.h'))) {
    return beside;
  }
  for (const from of [join(process.cwd(), 'package.json'), join(PACKAGE_ROOT, 'package.json')]) {
    const found = resolveFrom(from, 'node-api-headers/package.json');
    if (found) {
      return join(dirname(found), 'include');
    }
  }
  throw new BackendError('[tensorflow] node_api.h is not here; npm install --save-dev node-api-headers');
}
