import { files } from '#platform';
import { readJson } from '../config/config.js';
import { CheckpointError } from '../errors.js';
import { warn } from '../utils/logging.js';
import { baseName as baseNameOf, joinPath } from '../utils/paths.js';
import { openSafetensors, type SafetensorsFile } from './safetensors/file.js';
import type { StateDict } from './state_dict.js';

/** Names of the weights of a component, best first: of the variant, then plain; one file, then an index of shards. */
export function weightFileCandidates(baseName: string, variant?: string): { file: string; sharded: boolean }[] {
  const plain = [
    { file: `${baseName}.safetensors`, sharded: false },
    { file: `${baseName}.safetensors.index.json`, sharded: true },
  ];
  return variant === undefined
    ? plain
    : [
        { file: `${baseName}.${variant}.safetensors`, sharded: false },
        { file: `${baseName}.safetensors.index.${variant}.json`, sharded: true },
        ...plain,
      ];
}

/**
 * Whether a file would stand beside weights and a tokenizer that are saved now as a rest of what was there before: shards
 * with their index of the same variant, another form of the tokenizer.
 */
export function isReplacedBySaving(path: string, variant?: string): boolean {
  const name = baseNameOf(path);
  if (['tokenizer.json', 'added_tokens.json'].includes(name)) {
    return true;
  }
  const [, before, after] =
    name.match(/^(?:diffusion_pytorch_)?model(?:\.([\w-]+?))?-\d{5}-of-\d{5}(?:\.([\w-]+))?\.safetensors$/) ??
    name.match(/^(?:diffusion_pytorch_)?model\.safetensors\.index(?:\.([\w-]+))?\.json$/) ??
    ([null, null] as const);
  return before !== null && (before ?? after) === variant;
}

/** Checks a shard index and gives the file of each tensor. */
function parseWeightMap(json: unknown, path: string): Map<string, string> {
  const map = (json as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw new CheckpointError(`${path}: expected an object 'weight_map' from tensor names to file names`);
  }
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== 'string' || !/^[^/\\:]+\.safetensors$/.test(file)) {
      throw new CheckpointError(
        `${path}: tensor '${name}' is mapped to ${JSON.stringify(file)}; expected a .safetensors file name in the same directory`,
      );
    }
  }
  return new Map(Object.entries(map as Record<string, string>));
}

/** Tensors of several files under the index that says which file holds which. */
class ShardedStateDict implements StateDict {
  constructor(
    private readonly weightMap: Map<string, string>,
    private readonly shards: Map<string, SafetensorsFile>,
    private readonly path: string,
  ) {}

  keys(): string[] {
    return [...this.weightMap.keys()];
  }

  info(key: string) {
    return this.shard(key)?.info(key);
  }

  async read(key: string): Promise<Uint8Array> {
    return this.shardOf(key).read(key);
  }

  async close(): Promise<void> {
    await Promise.all([...this.shards.values()].map((shard) => shard.close()));
  }

  private shardOf(key: string): SafetensorsFile {
    const shard = this.shard(key);
    if (!shard) {
      throw new CheckpointError(`${this.path}: there is no tensor '${key}'`);
    }
    return shard;
  }

  private shard(key: string): SafetensorsFile | undefined {
    const file = this.weightMap.get(key);
    return file === undefined ? undefined : this.shards.get(file);
  }
}

/** Lists where the index and the shards disagree; empty when each tensor is in its file and in no other. */
function disagreements(weightMap: Map<string, string>, shards: Map<string, SafetensorsFile>): string[] {
  const found: string[] = [];
  for (const [name, file] of weightMap) {
    if (!shards.get(file)!.info(name)) {
      found.push(`'${name}' is not in ${file}`);
    }
  }
  for (const [file, shard] of shards) {
    for (const name of shard.keys()) {
      const mapped = weightMap.get(name);
      if (mapped !== file) {
        found.push(`'${name}' of ${file} is ${mapped === undefined ? 'not in the index' : `mapped to ${mapped}`}`);
      }
    }
  }
  return found;
}

async function openSharded(dir: string, indexFile: string): Promise<StateDict> {
  const path = joinPath(dir, indexFile);
  const weightMap = parseWeightMap(await readJson(path), path);
  const names = [...new Set(weightMap.values())].sort();
  const present = await Promise.all(names.map((name) => files.kind(joinPath(dir, name))));
  const missing = names.filter((_, i) => present[i] === undefined);
  if (missing.length > 0) {
    throw new CheckpointError(`${path}: shards are missing: ${missing.join(', ')}; download the checkpoint again`);
  }
  const shards = new Map<string, SafetensorsFile>();
  try {
    for (const file of names) {
      shards.set(file, await openSafetensors(joinPath(dir, file)));
    }
    const wrong = disagreements(weightMap, shards);
    if (wrong.length > 0) {
      const more = wrong.length > 10 ? `, and ${wrong.length - 10} more` : '';
      throw new CheckpointError(`${path} does not fit its shards: ${wrong.slice(0, 10).join(', ')}${more}`);
    }
  } catch (error) {
    await Promise.all([...shards.values()].map((shard) => shard.close()));
    throw error;
  }
  return new ShardedStateDict(weightMap, shards, path);
}

/**
 * Opens the weights in `dir` that are named after `baseName` ('model' or 'diffusion_pytorch_model'): one safetensors
 * file or shards with an index. With a variant its files are taken; where there are none, the plain ones and a warning.
 * Close the result after use.
 * @throws {CheckpointError} when there are no such files, only pickled ones, or damaged ones
 */
export async function openStateDict(
  dir: string,
  baseName: string,
  { variant }: { variant?: string } = {},
): Promise<StateDict> {
  const candidates = weightFileCandidates(baseName, variant);
  const chosen = await firstPresent(dir, candidates);
  if (!chosen) {
    throw new CheckpointError(explainNoWeights(dir, baseName, await namesIn(dir), candidates));
  }
  if (variant !== undefined && !chosen.file.includes(`.${variant}.`)) {
    warn(`${dir} has no weights of variant '${variant}'; taking ${chosen.file}`);
  }
  return chosen.sharded ? openSharded(dir, chosen.file) : openSafetensors(joinPath(dir, chosen.file));
}

async function firstPresent<T extends { file: string }>(dir: string, candidates: readonly T[]): Promise<T | undefined> {
  for (const candidate of candidates) {
    if ((await files.kind(joinPath(dir, candidate.file))) !== undefined) {
      return candidate;
    }
  }
  return undefined;
}

async function namesIn(dir: string): Promise<string[]> {
  try {
    return await files.list(dir);
  } catch (error) {
    throw new CheckpointError(`'${dir}' is not a directory with weights: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function explainNoWeights(dir: string, baseName: string, names: string[], candidates: { file: string }[]): string {
  const wanted = `'${dir}' has no ${candidates.map(({ file }) => file).join(' or ')}`;
  const pickle = names.find((name) => /\.(bin|ckpt|pt|pth)$/.test(name));
  if (pickle !== undefined) {
    return (
      `${wanted}, only ${pickle}, a Python pickle, which can run code and is not read; ` +
      'convert it in Python with pipe.save_pretrained(dir, safe_serialization=True) or take a revision with safetensors'
    );
  }
  const variants = names
    .map((name) => name.match(/^(.+?)\.([^.]+)\.safetensors$/))
    .filter((match) => match !== null && match[1] === baseName)
    .map((match) => match![2]);
  if (variants.length > 0) {
    return `${wanted}, only of variant ${variants.map((v) => `'${v}'`).join(' and ')}; pass {variant: '${variants[0]}'}`;
  }
  return `${wanted}; it holds ${names.length === 0 ? 'nothing' : names.slice(0, 10).join(', ')}`;
}
