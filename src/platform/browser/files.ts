import { FileWriteError } from '../../errors.js';
import type { ByteSource, Files } from '../types.js';
import { listPrivate, privateDirectory, privateFile, writePrivate } from './private_files.js';
import { blobSource, notFound, request, urlSource } from './sources.js';

const mounted = new Map<string, Blob>();
const MOUNTED = 'mounted:/';
const PRIVATE = 'opfs:/';

/**
 * Gives files that the user chose (an `<input type="file" webkitdirectory>`, a drop) a path for `fromPretrained`.
 *
 * @param name of the checkpoint
 * @returns the directory: 'mounted:/name'
 */
export function mountFiles(name: string, chosen: Iterable<File>): string {
  for (const file of chosen) {
    const path = file.webkitRelativePath;
    mounted.set(`${MOUNTED}${name}/${path === '' ? file.name : path.slice(path.indexOf('/') + 1)}`, file);
  }
  return MOUNTED + name;
}

function mountedFile(path: string): Blob {
  const blob = mounted.get(path);
  if (!blob) {
    throw notFound(path);
  }
  return blob;
}

function open(path: string): Promise<ByteSource> {
  if (path.startsWith(MOUNTED)) {
    return Promise.resolve(path).then((name) => blobSource(mountedFile(name)));
  }
  return path.startsWith(PRIVATE) ? privateFile(path).then(blobSource) : urlSource(path);
}

async function readBytes(path: string, maxBytes = Infinity): Promise<Uint8Array> {
  const source = await open(path);
  if (source.size > maxBytes) {
    throw new Error(`it has ${source.size} bytes, more than the ${maxBytes} that are expected at most`);
  }
  return source.read(0, source.size);
}

async function exists(probe: () => Promise<unknown>): Promise<boolean> {
  return probe().then(
    () => true,
    () => false,
  );
}

/** Addresses that end so are files; that saves two questions for each. */
const FILE_NAME = /\.(json|txt|safetensors|bin|ckpt|pt|model|png|jpe?g|webp)$/;

/** An address is a checkpoint's directory when a configuration is there; other addresses are files. */
async function kindOfUrl(url: string): Promise<'file' | 'directory' | undefined> {
  if (!/^(https?:|blob:|\.{0,2}\/)/.test(url)) {
    return undefined;
  }
  for (const name of FILE_NAME.test(url) ? [] : ['model_index.json', 'config.json']) {
    if (await exists(() => request(`${url.replace(/\/$/, '')}/${name}`, { method: 'HEAD' }))) {
      return 'directory';
    }
  }
  return (await exists(() => request(url, { method: 'HEAD' }))) ? 'file' : undefined;
}

async function kind(path: string): Promise<'file' | 'directory' | undefined> {
  if (path.startsWith(MOUNTED)) {
    const isFolder = [...mounted.keys()].some((name) => name.startsWith(`${path}/`));
    return mounted.has(path) ? 'file' : isFolder ? 'directory' : undefined;
  }
  if (path.startsWith(PRIVATE)) {
    const isFile = await exists(() => privateFile(path));
    return isFile ? 'file' : (await exists(() => privateDirectory(path, false))) ? 'directory' : undefined;
  }
  return kindOfUrl(path);
}

/** Names in a directory; a server on the web does not tell them. */
async function list(dir: string): Promise<string[]> {
  if (dir.startsWith(MOUNTED)) {
    const inside = [...mounted.keys()].filter((path) => path.startsWith(`${dir}/`));
    return [...new Set(inside.map((path) => path.slice(dir.length + 1).split('/')[0]!))];
  }
  return dir.startsWith(PRIVATE) ? listPrivate(dir) : [];
}

async function checkWritable(path: string): Promise<void> {
  if (!path.startsWith(PRIVATE)) {
    throw new FileWriteError(`cannot write '${path}': a page writes below '${PRIVATE}' only; choose a path there`);
  }
}

/** Files of a browser, by address. */
export const files: Files = {
  kind,
  list,
  readBytes,
  open,
  checkWritable,
  async makeDirectory(path) {
    await checkWritable(path);
    await privateDirectory(path, true);
  },
  async write(path, content) {
    await checkWritable(path);
    await writePrivate(path, content);
  },
  async save(dir, fill) {
    await checkWritable(dir);
    await fill(dir);
  },
  finishSaves: async () => undefined,
};
