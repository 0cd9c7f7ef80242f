import { readdirSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { resolvePretrained } from '../../loaders/hub/hub.js';
import { CLIPTokenizer } from '../../tokenizers/index.js';
import type { Capabilities } from './capabilities.js';
import type { ModelSource } from './engine.js';
import type { EnginePool } from './engine_pool.js';
import type { LoadSettings } from './loaded_model.js';

/** A model as clients see it. */
export interface ModelEntry {
  name: string;
  loaded: boolean;
  /** What it can be asked for; undefined before it was loaded once. */
  capabilities?: Capabilities;
}

/** The models of a server. */
export interface Catalog {
  list(): Promise<ModelEntry[]>;
  /** Loads a model, the first one where no name is given. @throws UnknownModelError */
  load(name?: string): Promise<{ name: string; capabilities: Capabilities }>;
  /** Tokens of a prompt, without those that begin and end it; undefined where the server has no tokenizer of the model. */
  tokens(name: string | undefined, text: string): Promise<number | undefined>;
}

/** Where models are. */
export interface ModelPlaces {
  /** Directories, files or ids of the hub. */
  models?: readonly string[];
  /** A directory whose checkpoints are all offered. */
  directory?: string;
  /** A directory with LoRA files. */
  loras?: string;
  settings: LoadSettings;
}

/** Milliseconds after which a directory is looked at again. */
const FRESH = 2000;

const hasIndex = (dir: string): boolean => {
  try {
    return readdirSync(dir).includes('model_index.json');
  } catch {
    return false;
  }
};

/** Checkpoints in a directory: directories in diffusers' layout. */
function checkpointsIn(directory: string): string[] {
  const entries = readdirSync(directory, { withFileTypes: true });
  const paths = entries.flatMap((entry) => {
    const path = join(directory, entry.name);
    return hasIndex(path) ? [path] : [];
  });
  return paths.sort();
}

/** Paths of LoRA files by their names without extension. */
function lorasIn(directory: string): Record<string, string> {
  const files = readdirSync(directory).filter((name) => name.endsWith('.safetensors'));
  return Object.fromEntries(files.sort().map((name) => [nameOf(name), join(directory, name)]));
}

/** 'dir/my-model' and 'owner/my-model' are 'my-model'. */
const nameOf = (source: string): string => basename(resolve(source)).replace(/\.(safetensors|gguf|ckpt)$/, '');

/**
 * The models at some places, found anew from time to time.
 *
 * @throws when a directory cannot be read
 */
export function modelSources({
  models = [],
  directory,
  loras: loraDirectory,
  settings,
}: ModelPlaces): () => ModelSource[] {
  const find = (): ModelSource[] => {
    const loras = loraDirectory === undefined ? {} : lorasIn(loraDirectory);
    const sources = [...models, ...(directory === undefined ? [] : checkpointsIn(directory))];
    const rows = sources.map((source) => [nameOf(source), { name: nameOf(source), source, settings, loras }] as const);
    return [...new Map(rows).values()];
  };
  let found = find();
  let looked = Date.now();
  return () => {
    if ((directory ?? loraDirectory) !== undefined && Date.now() - looked > FRESH) {
      looked = Date.now();
      found = find();
    }
    return found;
  };
}

/** The models of an engine pool in this process. */
export class LocalCatalog implements Catalog {
  private readonly tokenizers = new Map<string, Promise<CLIPTokenizer | undefined>>();

  constructor(private readonly pool: EnginePool) {}

  async list(): Promise<ModelEntry[]> {
    const { loaded } = this.pool;
    return this.pool.models.map(({ name }) => ({
      name,
      loaded: loaded.includes(name),
      capabilities: this.pool.capabilities(name),
    }));
  }

  async load(name?: string): Promise<{ name: string; capabilities: Capabilities }> {
    const model = this.pool.find(name);
    return { name: model.name, capabilities: await this.pool.load(model.name) };
  }

  async tokens(name: string | undefined, text: string): Promise<number | undefined> {
    const model = this.pool.find(name);
    const known = this.tokenizers.get(model.name) ?? tokenizerOf(model).catch(() => undefined);
    this.tokenizers.set(model.name, known);
    const ids = (await known)?.encode(text, { addSpecialTokens: false });
    return ids?.length;
  }
}

/** Counted here, because an engine answers nothing within a step. */
async function tokenizerOf({ source, settings: { variant, revision } }: ModelSource): Promise<CLIPTokenizer> {
  const { dir } = await resolvePretrained(source, { variant, revision });
  return CLIPTokenizer.fromPretrained(join(dir, 'tokenizer'));
}
