import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** What Debian's oneDNN links besides what every system has. */
const OPENCL = { package: 'ocl-icd-libopencl1', library: 'libOpenCL.so.1' };
const TRIPLE = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }[process.arch];
export const INSTALL_LINE = 'apt-get install -y cmake g++ libdnnl-dev && npm run build:native';

const prefixes = (root) => [process.env.ONEDNN_ROOT, '/usr', '/usr/local', join(root, '.deps', 'usr')].filter(Boolean);
const first = (folders, names) =>
  folders.flatMap((folder) => names.map((name) => join(folder, name))).find((path) => existsSync(path));

/** The headers and the library of oneDNN on this machine, or undefined. */
export function findOneDnn(root) {
  for (const prefix of prefixes(root)) {
    const header = first([join(prefix, 'include')], ['dnnl.hpp', 'oneapi/dnnl/dnnl.hpp']);
    const library = first(
      [join(prefix, 'lib', TRIPLE ?? ''), join(prefix, 'lib64'), join(prefix, 'lib')],
      ['libdnnl.so'],
    );
    if (header && library)
      return { include: join(prefix, 'include'), library, local: prefix.startsWith(join(root, '.deps')) };
  }
  return undefined;
}

function loadable(library) {
  try {
    return execFileSync('ldconfig', ['-p'], {
      encoding: 'utf8',
      env: { ...process.env, PATH: `${process.env.PATH}:/sbin:/usr/sbin` },
    }).includes(library);
  } catch {
    return false;
  }
}

/** Unpacks Debian's oneDNN into .deps/ of the repository: needs no root and changes nothing of the system. */
export function fetchOneDnn(root) {
  const deps = join(root, '.deps');
  const state = join(deps, 'apt');
  for (const folder of ['state/lists/partial', 'cache/archives/partial', 'packages']) {
    mkdirSync(join(state, folder), { recursive: true });
  }
  const options = [
    ['Dir::State', join(state, 'state')],
    ['Dir::State::Lists', join(state, 'state/lists')],
    ['Dir::State::Status', '/var/lib/dpkg/status'],
    ['Dir::Cache', join(state, 'cache')],
    ['Debug::NoLocking', 'true'],
    ['APT::Sandbox::User', ''],
    ['Acquire::Languages', 'none'],
    ['Acquire::Retries', '3'],
  ].flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  const apt = (command, cwd) =>
    execFileSync('apt-get', [...options, '-qq', ...command], {
      cwd,
      stdio: ['ignore', 'ignore', 'pipe'],
      timeout: 300_000,
    });
  const folder = join(state, 'packages');
  apt(['update'], folder);
  const depends = execFileSync('apt-cache', [...options, 'depends', 'libdnnl-dev'], { encoding: 'utf8' });
  // libdnnl2 on Debian 12, libdnnl3 and later ones elsewhere
  const runtime = /Depends: (libdnnl\d\S*)/.exec(depends)?.[1];
  if (!runtime) throw new Error('the package archive of this system has no oneDNN');
  const packages = ['libdnnl-dev', runtime, ...(loadable(OPENCL.library) ? [] : [OPENCL.package])];
  apt(['download', ...packages], folder);
  for (const file of readdirSync(folder)) {
    if (file.endsWith('.deb')) execFileSync('dpkg', ['-x', join(folder, file), deps], { stdio: 'pipe' });
  }
  rmSync(state, { recursive: true, force: true });
}
