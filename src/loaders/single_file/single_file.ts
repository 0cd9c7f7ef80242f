import { files } from '#platform';
import { readJsonObject } from '../../config/config.js';
import { CheckpointError } from '../../errors.js';
import { joinPath } from '../../utils/paths.js';
import { openSafetensors } from '../safetensors/file.js';
import { renameKeys, type StateDict } from '../state_dict.js';
import { CONFIGS } from './configs.js';
import { ControlNetNames } from './controlnet_names.js';
import { kindOf, type SingleFileKind } from './kinds.js';
import { type Origin, openClipOrigin } from './open_clip_names.js';
import { UNetNames } from './unet_names.js';
import { VaeNames } from './vae_names.js';
import { viewOf } from './view.js';

type Json = Readonly<Record<string, unknown>>;

/** Prefixes of the keys of a component, those of its own files last. */
const PREFIXES: Readonly<Record<string, readonly string[]>> = {
  unet: ['model.diffusion_model.'],
  vae: ['first_stage_model.', ''],
  controlnet: ['control_model.', ''],
  text_encoder: ['cond_stage_model.transformer.', 'conditioner.embedders.0.transformer.', 'cond_stage_model.model.'],
  text_encoder_2: ['conditioner.embedders.1.model.', 'conditioner.embedders.0.model.'],
};

/** Keys of text encoders that are no weights of theirs. */
const NO_WEIGHTS = /(^|\.)(position_ids|logit_scale|attn_mask)$/;

/** A checkpoint in one .safetensors file, in the layout of the original code (LDM, generative-models), as components. */
export class SingleFile {
  private constructor(
    readonly path: string,
    private readonly dict: StateDict,
    readonly kind: SingleFileKind,
    /** Directory of configurations in diffusers' layout, in place of those of the kind. */
    readonly configDir: string | undefined,
  ) {}

  /**
   * Opens a file and finds out what it is.
   *
   * @throws CheckpointError for a file that is damaged or of no kind that is known
   */
  static async open(path: string, config?: string): Promise<SingleFile> {
    const dict = await openSafetensors(path);
    try {
      return new SingleFile(path, dict, await kindOf(dict, dict.metadata, `'${path}'`), config);
    } catch (error) {
      await dict.close();
      throw error;
    }
  }

  /** What model_index.json would say. */
  async index(): Promise<Json> {
    const own = this.configDir && (await readJsonObject(joinPath(this.configDir, 'model_index.json')));
    return own || CONFIGS[this.kind].index;
  }

  /**
   * What the configuration of a component would say.
   *
   * @param folder its name in model_index.json
   */
  async config(folder: string): Promise<Json> {
    const name = folder === 'scheduler' ? 'scheduler_config.json' : 'config.json';
    const dir = this.configDir;
    const own = dir && ((await readJsonObject(joinPath(dir, folder, name))) ?? (await this.ownConfig(dir, name)));
    const config = own || CONFIGS[this.kind].components[folder];
    if (!config) {
      throw new CheckpointError(`'${this.path}' is a single file of kind ${this.kind}, which has no ${folder}`);
    }
    return config;
  }

  /** Whether the directory of configurations has a folder of that name. */
  async hasConfig(folder: string): Promise<boolean> {
    return this.configDir !== undefined && (await files.kind(joinPath(this.configDir, folder))) === 'directory';
  }

  /** Whether the file is one component. */
  private get isPart(): boolean {
    return Object.keys(CONFIGS[this.kind].components).length === 1;
  }

  /** The configuration of such a file. */
  private ownConfig(dir: string, name: string): Promise<Json | undefined> {
    return this.isPart ? readJsonObject(joinPath(dir, name)) : Promise.resolve(undefined);
  }

  /**
   * The tensors of a component under diffusers' names. Closing it closes the file.
   *
   * @param paths of all of the component's tensors
   * @throws CheckpointError when the file has none of them
   */
  component(folder: string, paths: readonly string[]): StateDict {
    const prefixes = (PREFIXES[folder] ?? []).filter((prefix) => prefix !== '' || this.isPart);
    const prefix = prefixes.find((prefix) => this.dict.keys().some((key) => key.startsWith(prefix)));
    if (prefix === undefined) {
      const wanted = prefixes.map((prefix) => `'${prefix}...'`).join(' or ');
      throw new CheckpointError(
        `'${this.path}' has no ${folder} (no keys ${wanted}); give one in the options: the file holds only other parts`,
      );
    }
    const own = (key: string) => key.startsWith(prefix) && !NO_WEIGHTS.test(key);
    if (prefix.endsWith('.transformer.')) {
      return renameKeys(this.dict, (key) => (own(key) ? key.slice(prefix.length) : null));
    }
    return this.renamed(folder, prefix, paths, own);
  }

  private renamed(folder: string, prefix: string, paths: readonly string[], own: (key: string) => boolean): StateDict {
    const origins = new Map<string, Origin>();
    const originOf = originRule(folder, paths);
    for (const path of paths) {
      // a VAE or ControlNet alone may have diffusers' names already
      const origin = prefix === '' && this.dict.info(path) ? { key: path } : originOf(path);
      if (origin) {
        origins.set(path, { ...origin, key: prefix + origin.key });
      }
    }
    const layers = Math.max(-1, ...paths.map((path) => Number(/\.layers\.(\d+)\./.exec(path)?.[1] ?? -1)));
    return viewOf(this.dict, origins, (key) => own(key) && !isPastLastLayer(key, folder, layers));
  }

  close(): Promise<void> {
    return this.dict.close();
  }
}

function originRule(folder: string, paths: readonly string[]): (path: string) => Origin | undefined {
  if (folder.startsWith('text_encoder')) {
    return openClipOrigin;
  }
  const rules = { vae: VaeNames, controlnet: ControlNetNames, unet: UNetNames };
  const names = new rules[folder as keyof typeof rules](paths);
  return (path) => {
    const key = names.of(path);
    return key === undefined ? undefined : { key };
  };
}

/** Stable Diffusion 2 takes the states before OpenCLIP's last layer, which diffusers leaves out with the projection. */
function isPastLastLayer(key: string, folder: string, last: number): boolean {
  const layer = Number(/\.resblocks\.(\d+)\./.exec(key)?.[1] ?? -1);
  return folder === 'text_encoder' && (layer > last || key.endsWith('.text_projection'));
}
