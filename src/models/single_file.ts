import { findWeightsFile, type WeightsFileOptions } from '../loaders/hub/weights_file.js';
import { SingleFile } from '../loaders/single_file/single_file.js';
import { is } from '../utils/check.js';
import { baseName } from '../utils/paths.js';
import type { ConfigJson, LoadModelOptions, Model, ModelClass } from './model.js';
import { loadStateDict } from './model_loading.js';

/** Options of a model's `fromSingleFile`. */
export interface SingleFileOptions
  extends Omit<LoadModelOptions, 'variant'>,
    Omit<WeightsFileOptions, 'signal' | 'onProgress'> {
  /** A configuration, or a directory with one in diffusers' layout, in place of the built-in one of the file's kind. */
  config?: string | ConfigJson;
}

/** How a component of a file on this machine is loaded. */
export type FilePartOptions = Omit<LoadModelOptions, 'variant'> & Pick<SingleFileOptions, 'config'>;

/**
 * Loads a model from one file in the layout of the original code, or of the model alone.
 *
 * @param folder the component's name in model_index.json
 * @param source a .safetensors file, or its address on the hub
 * @throws CheckpointError, StateDictError, ConfigError, DownloadError for a file that does not hold such a model
 */
export async function loadModelFile<M extends Model>(
  modelClass: ModelClass<M>,
  folder: string,
  source: string,
  options: SingleFileOptions = {},
): Promise<M> {
  const { revision, subfolder, cacheDir, token, localFilesOnly, weightName, ...rest } = options;
  const where = { revision, subfolder, cacheDir, token, localFilesOnly, weightName, signal: options.signal };
  return loadFilePart(modelClass, folder, await findWeightsFile(source, where), rest);
}

/** The same of a file on this machine. */
export async function loadFilePart<M extends Model>(
  modelClass: ModelClass<M>,
  folder: string,
  path: string,
  options: FilePartOptions,
): Promise<M> {
  const { config: given, dtype, signal, onProgress } = options;
  const dir = is.string(given) ? given : undefined;
  const config = is.object(given) ? given : await configOf(path, folder, dir);
  const model = new modelClass(config, { ...options, source: `${baseName(path)}: ${folder}` });
  const paths = model.parameters.map(({ path }) => path);
  const open = () => openPart(path, folder, dir, paths);
  model.attachCheckpoint(open);
  const dict = await open();
  try {
    const ignore = modelClass.ignoredKeys;
    await loadStateDict(model.parameters, dict, { dtype, signal, onProgress, ignore, source: `'${path}' (${folder})` });
  } finally {
    await dict.close();
  }
  return model;
}

async function openPart(path: string, folder: string, dir: string | undefined, paths: readonly string[]) {
  const file = await SingleFile.open(path, dir);
  try {
    return file.component(folder, paths);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function configOf(path: string, folder: string, dir: string | undefined) {
  const file = await SingleFile.open(path, dir);
  try {
    return await file.config(folder);
  } finally {
    await file.close();
  }
}
