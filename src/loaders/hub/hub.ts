import { files, type HubCache, hubCacheDir, openHubCache } from '#platform';
import { readJson } from '../../config/config.js';
import { DownloadError, InvalidArgumentError } from '../../errors.js';
import { warn } from '../../utils/logging.js';
import { joinPath } from '../../utils/paths.js';
import { type Component, matchesPattern, pipelineComponents, selectFiles, singleComponent } from './files.js';
import { type HubAccess, HubRequestError, hubEndpoint, hubToken, isOffline, throwIfAborted } from './request.js';
import { addressOf, type DownloadProgress, RemoteSnapshot, remoteCommit } from './snapshot.js';

export type { DownloadProgress } from './snapshot.js';

export interface ResolveOptions {
  /** Branch, tag or commit of the hub's repository; 'main' unless told. */
  revision?: string;
  /** Prefer weights of this variant: 'fp16' takes *.fp16.safetensors where a component has them. */
  variant?: string;
  /** Only this directory of the repository, for a model of its own: 'unet'. */
  subfolder?: string;
  /** Instead of what loading needs, the files that match one of these shell patterns: ['*.json', 'unet/*']. */
  allowPatterns?: readonly string[];
  /**
   * Chooses files among all of the repository's, or of its copy in the cache, instead of what loading needs.
   * @throws DownloadError when there is none to choose
   */
  chooseFiles?: (paths: readonly string[]) => string[];
  /** Cache directory; HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub unless told. */
  cacheDir?: string;
  /** Access token; HF_TOKEN or the stored one unless told, none with false. */
  token?: string | false;
  /** Take only what the cache has, as HF_HUB_OFFLINE=1 does for every call. */
  localFilesOnly?: boolean;
  signal?: AbortSignal;
  onProgress?: (progress: DownloadProgress) => void;
}

const MODEL_INDEX = 'model_index.json';

/**
 * The directory of a checkpoint: `idOrDir` itself when it is a directory on this machine, otherwise the snapshot of that
 * repository of the Hugging Face hub in the cache that all Hugging Face libraries share. What loading needs and the cache
 * lacks is downloaded: configurations, tokenizers and safetensors weights.
 * @throws {DownloadError} saying what to do when there is no such repository, no access, no connection, or the cache lacks
 *   something offline
 * @throws {AbortedError} when the signal stops it
 * @throws {InvalidArgumentError} when `idOrDir` is a file or neither a path nor an id
 */
export async function resolvePretrained(idOrDir: string, options: ResolveOptions = {}): Promise<{ dir: string }> {
  const local = await files.kind(idOrDir);
  if (local === 'directory') {
    await files.finishSaves(idOrDir);
    return { dir: idOrDir };
  }
  checkHubId(idOrDir, local !== undefined);
  const { signal, revision = 'main' } = options;
  throwIfAborted(signal, idOrDir);
  const cache = openHubCache(options.cacheDir ?? hubCacheDir(), idOrDir);
  if (cache && (options.localFilesOnly || isOffline())) {
    return { dir: await resolveFromCache(cache, idOrDir, options) };
  }
  const token = await hubToken(options.token);
  const access = { endpoint: hubEndpoint(), id: idOrDir, revision, token, signal };
  if (!cache) {
    // a page outside of workers has no such cache: files are read at their addresses
    return { dir: addressOf(access, await remoteCommit(access)) };
  }
  try {
    return { dir: await download(cache, access, options) };
  } catch (error) {
    const copy = error instanceof HubRequestError && error.transient ? await findInCache(cache, options) : undefined;
    if (!copy || copy.missing.length > 0) {
      throw error;
    }
    warn(`${(error as Error).message}. Taking the copy in the cache, which may be older`);
    return { dir: copy.dir };
  }
}

function checkHubId(id: string, isFile: boolean): void {
  if (isFile) {
    throw new InvalidArgumentError(
      `'${id}' is a file; expected the directory of a checkpoint in diffusers' layout (with ${MODEL_INDEX}) or a hub id`,
    );
  }
  if (/^([./\\~]|[a-zA-Z]:[/\\])/.test(id) || id.endsWith('/') || id.split('/', 3).length > 2) {
    throw new DownloadError(`there is no directory '${id.slice(0, 1000)}' on this machine; check the path`);
  }
  if (!/^[\w.-]+(\/[\w.-]+)?$/.test(id) || /\.\.|--|\/\./.test(id) || id.length > 96) {
    throw new InvalidArgumentError(
      `'${id.slice(0, 200)}' is neither a directory on this machine nor a hub id; expected a path or 'organisation/name'`,
    );
  }
}

/** Which parts of a repository are wanted: the given directory, those of model_index.json, or a single model's root. */
async function componentsOf(
  paths: readonly string[],
  subfolder: string | undefined,
  readIndex: () => Promise<unknown>,
): Promise<Component[]> {
  if (subfolder === undefined && paths.includes(MODEL_INDEX)) {
    return pipelineComponents(await readIndex());
  }
  return [singleComponent(paths, (subfolder ?? '').replace(/\/+$/, ''))].filter((component) => component !== undefined);
}

/** Paths of the files to have, and the warnings about the choice. */
async function selectFrom(snapshot: RemoteSnapshot, id: string, options: ResolveOptions) {
  const paths = snapshot.paths();
  const { allowPatterns, chooseFiles, subfolder, variant } = options;
  if (chooseFiles) {
    return { files: chooseFiles(paths), warnings: [] };
  }
  if (allowPatterns) {
    const files = paths.filter((path) => allowPatterns.some((pattern) => matchesPattern(path, pattern)));
    if (files.length === 0) {
      throw new DownloadError(`'${id}' has no file that matches ${allowPatterns.join(', ')}; ${holds(paths)}`);
    }
    return { files, warnings: [] };
  }
  const components = await componentsOf(paths, subfolder, async () => {
    await snapshot.ensure([MODEL_INDEX]);
    return readJson(snapshot.pathOf(MODEL_INDEX));
  });
  if (components.length === 0) {
    const wanted =
      subfolder === undefined
        ? `no ${MODEL_INDEX} and no config.json`
        : `no model, scheduler or tokenizer in '${subfolder}'`;
    const layout = "expected a repository in diffusers' layout, not a single checkpoint file";
    throw new DownloadError(`'${id}' has ${wanted}: ${layout}; ${holds(paths)}`);
  }
  const { files, warnings } = selectFiles(paths, components, variant);
  const root = subfolder === undefined && paths.includes(MODEL_INDEX) ? [MODEL_INDEX] : [];
  return { files: [...root, ...files], warnings };
}

function holds(paths: string[]): string {
  const shown = paths.slice(0, 8).join(', ');
  return paths.length === 0 ? 'it holds nothing' : `it holds ${shown}${paths.length > 8 ? ', ...' : ''}`;
}

async function download(cache: HubCache, access: HubAccess, options: ResolveOptions): Promise<string> {
  const snapshot = await RemoteSnapshot.open(cache, access, options.onProgress);
  const { files, warnings } = await selectFrom(snapshot, access.id, options);
  for (const warning of warnings) {
    warn(`${access.id}: ${warning}`);
  }
  await snapshot.ensure(files);
  // Last, so that a revision in the cache is never one whose download was stopped.
  await snapshot.writeRef();
  return snapshot.dir;
}

/** The copy of a revision in the cache and what it lacks; undefined when there is none. */
async function findInCache(
  cache: HubCache,
  options: ResolveOptions,
): Promise<{ dir: string; missing: string[] } | undefined> {
  const dir = await cache.findSnapshot(options.revision ?? 'main');
  if (dir === undefined || options.allowPatterns) {
    return dir === undefined ? undefined : { dir, missing: [] };
  }
  const paths = await cache.list(dir);
  if (options.chooseFiles) {
    options.chooseFiles(paths);
    return { dir, missing: [] };
  }
  const components = await componentsOf(paths, options.subfolder, () => readJson(joinPath(dir, MODEL_INDEX)));
  if (components.length === 0) {
    return { dir, missing: [options.subfolder ?? MODEL_INDEX] };
  }
  const present = ({ dir }: Component) => dir === '' || paths.some((path) => path.startsWith(`${dir}/`));
  const absent = components.filter((component) => !component.optional && !present(component));
  const selection = selectFiles(paths, components, options.variant);
  const missing = [...new Set([...absent.map((component) => component.dir), ...selection.incomplete])];
  for (const path of selection.files) {
    if (await cache.isDamaged(joinPath(dir, path))) {
      missing.push(`${path}, which is damaged`);
    }
  }
  return { dir, missing };
}

async function resolveFromCache(cache: HubCache, id: string, options: ResolveOptions): Promise<string> {
  const copy = await findInCache(cache, options);
  if (copy && copy.missing.length === 0) {
    return copy.dir;
  }
  const why = copy
    ? `the copy of '${id}' in the cache is not complete (missing: ${copy.missing.join(', ')})`
    : `the cache has no '${id}' at revision '${options.revision ?? 'main'}'`;
  throw new DownloadError(
    `${why}, and the network is not to be used (localFilesOnly, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE); looked in ` +
      `${cache.root}. Run once with the network allowed, or pass the directory of a checkpoint`,
  );
}
