import { join } from 'node:path';
import { files } from '#platform';
import { readJsonObject } from '../config/config.js';
import { InvalidArgumentError, NotReproducibleError } from '../errors.js';
import { identifyFile } from '../images/read_image.js';
import { SingleFile } from '../loaders/single_file/single_file.js';
import { AutoencoderKL, type ConfigJson, type LoadModelOptions } from '../models/index.js';
import type { Redrawing } from '../pipelines/index.js';
import { baseName } from '../utils/paths.js';

/**
 * The VAE of `--vae`, to be given in place of the checkpoint's. A single file has the configuration of the checkpoint's
 * own: files of Stable Diffusion 1 and XL look the same.
 */
export async function loadVae(
  path: string | undefined,
  model: string,
  { dtype, attention }: LoadModelOptions,
): Promise<{ vae?: AutoencoderKL }> {
  const kind = path === undefined ? undefined : await files.kind(path);
  if (path === undefined) {
    return {};
  }
  if (kind === undefined) {
    throw new InvalidArgumentError(
      `[--vae] expects a directory with config.json or a .safetensors file, got '${path}'`,
    );
  }
  const weights = kind === 'file' ? path : join(path, 'diffusion_pytorch_model.safetensors');
  const config = kind === 'file' ? await ownConfig(model) : undefined;
  const vae =
    kind === 'file'
      ? await AutoencoderKL.fromSingleFile(path, { dtype, attention, config })
      : await AutoencoderKL.fromPretrained(path, { dtype, attention });
  vae.file = await identifyFile(baseName(weights), await files.readBytes(weights));
  return { vae };
}

/** The configuration of a checkpoint's VAE; undefined for a checkpoint that is not on this machine. */
async function ownConfig(model: string): Promise<ConfigJson | undefined> {
  if ((await files.kind(model)) !== 'file') {
    return readJsonObject(join(model, 'vae', 'config.json'));
  }
  const file = await SingleFile.open(model);
  try {
    return await file.config('vae');
  } finally {
    await file.close();
  }
}

/** @throws NotReproducibleError unless the VAE is the one that the picture was decoded with */
export function checkVae({ vae }: { vae?: AutoencoderKL }, redrawing: Redrawing): void {
  const [wanted, got] = [redrawing.vae.file, vae?.file];
  if (wanted?.sha256 !== got?.sha256) {
    const expected = wanted
      ? `with the VAE '${wanted.name}' (SHA-256 ${wanted.sha256})`
      : "with the checkpoint's own VAE";
    throw new NotReproducibleError(
      `the picture was drawn ${expected}; got ${got ? `'${got.name}' (SHA-256 ${got.sha256})` : 'none'}`,
    );
  }
}
