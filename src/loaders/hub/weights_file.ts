import { files } from '#platform';
import { CheckpointError, DownloadError, InvalidArgumentError } from '../../errors.js';
import { extensionOf, joinPath } from '../../utils/paths.js';
import { type ResolveOptions, resolvePretrained } from './hub.js';

/** How one file of weights is found. */
export interface WeightsFileOptions
  extends Pick<
    ResolveOptions,
    'revision' | 'subfolder' | 'cacheDir' | 'token' | 'localFilesOnly' | 'signal' | 'onProgress'
  > {
  /** Name of the file in the directory or repository; needed where there are several. */
  weightName?: string;
}

/** An address of a file on the hub: https://huggingface.co/organisation/name/blob/main/file.safetensors. */
const HUB_ADDRESS =
  /^(?:https?:\/\/)?(?:www\.)?(?:huggingface\.co|hf\.co)\/([^/]+\/[^/]+)\/(?:blob|resolve)\/([^/]+)\/([^?#]+)/;
const PICKLE = /^\.(bin|ckpt|pt|pth)$/;

/** Whether a source of weights names one file: a path, by its ending or by what is there, or an address on the hub. */
export function namesFile(source: string, kind: 'file' | 'directory' | undefined): boolean {
  const ending = extensionOf(source);
  return kind === 'file' || (kind === undefined && (ending === '.safetensors' || PICKLE.test(ending)));
}

/**
 * The path of one file of weights: `source` itself, the only one in a directory, or one of a repository or an address of
 * the hub, downloaded where it is not in the cache.
 *
 * @param preferred name that is taken where there are several files
 * @throws CheckpointError for pickles, DownloadError and InvalidArgumentError where there is no such file, or several
 */
export async function findWeightsFile(
  source: string,
  options: WeightsFileOptions = {},
  preferred?: string,
): Promise<string> {
  const address = HUB_ADDRESS.exec(source);
  if (address) {
    const [, id, revision, path] = address.map(decodeURIComponent) as [string, string, string, string];
    return findInRepository(id, { ...options, revision, weightName: path, subfolder: undefined }, preferred);
  }
  const kind = await files.kind(source);
  if (kind === 'file') {
    return safe(source);
  }
  if (kind === 'directory') {
    const { subfolder = '', weightName } = options;
    const dir = joinPath(source, subfolder);
    return safe(joinPath(dir, weightName ?? onlyWeights(await files.list(dir), `'${dir}'`, preferred)));
  }
  if (extensionOf(source) === '.safetensors' || PICKLE.test(extensionOf(source)) || source.includes('://')) {
    throw new DownloadError(
      `there is no file '${source}' on this machine; give a path, a repository of the hub with weightName, or an address ` +
        'such as https://huggingface.co/organisation/name/blob/main/file.safetensors',
    );
  }
  return findInRepository(source, options, preferred);
}

async function findInRepository(id: string, options: WeightsFileOptions, preferred?: string): Promise<string> {
  const { weightName, subfolder = '', ...rest } = options;
  let chosen = weightName === undefined ? undefined : safe(joinPath(subfolder, weightName));
  const chooseFiles = (paths: readonly string[]) => {
    chosen ??= chooseIn(id, subfolder, paths, preferred);
    if (!paths.includes(chosen)) {
      throw new DownloadError(`'${id}' has no file '${chosen}'; ${held(paths)}`);
    }
    return [chosen];
  };
  const { dir } = await resolvePretrained(id, { ...rest, chooseFiles });
  if (chosen === undefined) {
    throw new InvalidArgumentError(`weightName expects a file of '${id}', whose files cannot be listed here`);
  }
  return joinPath(dir, chosen);
}

function chooseIn(id: string, subfolder: string, paths: readonly string[], preferred?: string): string {
  const prefix = subfolder === '' ? '' : `${subfolder}/`;
  const own = paths.filter((path) => path.startsWith(prefix)).map((path) => path.slice(prefix.length));
  return `${prefix}${onlyWeights(own, `'${id}'`, preferred)}`;
}

/** The preferred file, or the only one of weights. */
function onlyWeights(names: readonly string[], where: string, preferred?: string): string {
  const weights = names.filter((name) => extensionOf(name) === '.safetensors');
  if (preferred !== undefined && weights.includes(preferred)) {
    return preferred;
  }
  if (weights.length > 1) {
    throw new InvalidArgumentError(`${where} has several files of weights; name one as weightName: ${shown(weights)}`);
  }
  if (weights.length === 0) {
    const pickle = names.find((name) => PICKLE.test(extensionOf(name)));
    throw pickle === undefined
      ? new DownloadError(`${where} has no .safetensors file; ${held(names)}`)
      : refuse(pickle);
  }
  return weights[0]!;
}

const shown = (names: readonly string[]) => `${names.slice(0, 8).join(', ')}${names.length > 8 ? ', ...' : ''}`;
const held = (names: readonly string[]) => (names.length === 0 ? 'it holds nothing' : `it holds ${shown(names)}`);

/** @throws CheckpointError for a pickle */
function safe(path: string): string {
  if (PICKLE.test(extensionOf(path))) {
    throw refuse(path);
  }
  return path;
}

function refuse(path: string): CheckpointError {
  return new CheckpointError(
    `'${path}' is a Python pickle, which can run code and is not read; take the .safetensors file of the same model, or ` +
      'convert it in Python: safetensors.torch.save_file(state_dict, path)',
  );
}
