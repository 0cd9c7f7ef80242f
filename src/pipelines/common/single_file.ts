import type { SingleFile } from '../../loaders/single_file/single_file.js';
import { type LoadModelOptions, Model, type ModelClass } from '../../models/model.js';
import { loadFilePart } from '../../models/single_file.js';
import { CLIPTokenizer } from '../../tokenizers/index.js';
import { joinPath } from '../../utils/paths.js';

/** The token that fills texts up, by the text encoder that reads them: OpenCLIP's take "!". */
const padToken = (folder: string, kind: string) =>
  folder === 'tokenizer_2' || kind.startsWith('v2') ? '!' : undefined;

const isModelClass = (value: unknown): value is ModelClass<Model> =>
  Object.prototype.isPrototypeOf.call(Model, value as object);

/**
 * A component from a single file; its tokenizer is CLIP's own, unless there is a directory of configurations that has one.
 *
 * @param componentClass the component's class: a model's, or CLIPTokenizer
 */
export async function loadFileComponent(
  componentClass: unknown,
  folder: string,
  file: SingleFile,
  options: LoadModelOptions,
): Promise<unknown> {
  const { configDir } = file;
  if (isModelClass(componentClass)) {
    return loadFilePart(componentClass, folder, file.path, { ...options, config: configDir });
  }
  const own = configDir === undefined ? undefined : joinPath(configDir, folder);
  return own !== undefined && (await file.hasConfig(folder))
    ? CLIPTokenizer.fromPretrained(own)
    : CLIPTokenizer.standard(padToken(folder, file.kind));
}
