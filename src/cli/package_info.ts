import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Directory of the package: the one above dist/ (or src/). */
export const PACKAGE_ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

const require = createRequire(import.meta.url);

function versionIn(packageJson: string): string {
  return (JSON.parse(readFileSync(packageJson, 'utf8')) as { version: string }).version;
}

export function packageVersion(): string {
  return versionIn(join(PACKAGE_ROOT, 'package.json'));
}

/** Version of an installed package; undefined when it is not installed. */
export function installedVersion(name: string): string | undefined {
  // not every package exports its package.json, so the search paths of require are walked
  const folders = require.resolve.paths(name) ?? [];
  const path = folders.map((folder) => join(folder, name, 'package.json')).find((file) => existsSync(file));
  return path && versionIn(path);
}

/** What a picture was drawn with. */
export function versions(): Record<string, string> {
  return {
    'tfjs-diffusers': packageVersion(),
    '@tensorflow/tfjs-core': installedVersion('@tensorflow/tfjs-core') ?? 'unknown',
    node: process.versions.node,
  };
}
