/** Licences of the libraries that a platform package carries beside the addon. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';

/** Where each library's texts lie under share/doc: as its own installation, or as a package of Debian's, puts them. */
const DOCUMENTS = {
  dnnl: { title: 'oneDNN', folder: /^(dnnl|libdnnl\d.*)$/, common: ['Apache-2.0'] },
  OpenCL: { title: 'the OpenCL loader of ocl-icd', folder: /^ocl-icd-libopencl1$/, common: [] },
  gomp: { title: "GCC's OpenMP runtime", folder: /^libgomp1$/, common: ['GPL-3'] },
};
const TEXTS = /^(copyright|LICENSE|THIRD-PARTY-PROGRAMS)$/;
/** Licences whose whole text Debian has once for all packages. */
const COMMON = '/usr/share/common-licenses';

/** The folder with a library's texts. */
function documentsOf(pattern, roots) {
  const folders = roots.filter(existsSync).flatMap((root) =>
    readdirSync(root)
      .filter((name) => pattern.test(name))
      .map((name) => join(root, name)),
  );
  return folders.find((folder) => readdirSync(folder).some((name) => TEXTS.test(name)));
}

/** Name and version of the source package, of Debian's change log; undefined for what was built by hand. */
function sourceOf(documents) {
  const log = join(documents, 'changelog.Debian.gz');
  const [, name, version] = (existsSync(log) && /^(\S+) \(([^)]+)\)/.exec(gunzipSync(readFileSync(log)))) || [];
  return name && `https://sources.debian.org/src/${name}/${version}/`;
}

/** One library's licence, with the notices of what it contains, as a file; gives its line in the NOTICE. */
function writeLicence(folder, name, roots) {
  const [, key] = /^lib(\w+)\.so/.exec(name);
  const { title, folder: pattern, common } = DOCUMENTS[key];
  const documents = documentsOf(pattern, roots);
  if (!documents) throw new Error(`the licence of ${name} is not on this machine`);
  const texts = readdirSync(documents).filter((file) => TEXTS.test(file));
  writeFileSync(join(folder, `${key}.txt`), texts.map((file) => readFileSync(join(documents, file))).join('\n\n'));
  for (const each of common) copyFileSync(join(COMMON, each), join(folder, `${each}.txt`));
  const files = [key, ...common].map((each) => `licences/${each}.txt`).join(' and ');
  const source = sourceOf(documents);
  return `${name}: ${title}; ${files}${source ? `; source: ${source}` : ''}\n`;
}

/**
 * Writes the licences of libraries into `target`: licences/<name>.txt each, and a NOTICE that lists them with their
 * sources.
 *
 * @param names as they are in the package, such as libdnnl.so.2
 * @param roots folders share/doc where their texts may be
 * @throws Error for a library whose licence is not on this machine
 */
export function writeLicences(target, names, roots) {
  const folder = join(target, 'licences');
  mkdirSync(folder, { recursive: true });
  const lines = names.map((name) => writeLicence(folder, name, roots));
  const head = 'This package contains these libraries, unchanged, under licences of their own:\n\n';
  writeFileSync(join(target, 'NOTICE'), head + lines.join(''));
}
