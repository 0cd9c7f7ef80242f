import { files } from '#platform';
import { InvalidArgumentError, StateDictError } from '../errors.js';
import { type InputFile, identifyFile } from '../images/read_image.js';
import { findWeightsFile, type WeightsFileOptions } from '../loaders/hub/weights_file.js';
import { openSafetensors } from '../loaders/safetensors/index.js';
import { decodeToFloat32, type StateDict } from '../loaders/state_dict.js';
import type { CLIPTextModel } from '../models/index.js';
import { CLIPTokenizer } from '../tokenizers/index.js';
import { expectThat, invalid, is } from '../utils/check.js';
import { baseName, extensionOf } from '../utils/paths.js';

/** Names that files of diffusers have where a repository has several. */
const FILE_NAME = 'learned_embeds.safetensors';
const WHERE = 'loadTextualInversion';

/** Options of `loadTextualInversion`. */
export interface TextualInversionOptions extends WeightsFileOptions {
  /** The word that stands for it in prompts. Default: the one in the file, or the file's name. */
  token?: string;
}

/** A text encoder of a pipeline with its tokenizer. */
export interface TextEncoding {
  tokenizer: unknown;
  textEncoder: CLIPTextModel;
}

/** A textual inversion of a pipeline, as its pictures' metadata tells it. */
export interface TextualInversionRecord {
  token: string;
  /** The file that it was loaded from; undefined where this page can compute no hash. */
  file: InputFile | undefined;
}

/** What is loaded into a tokenizer and its text encoder. */
interface Loaded extends TextualInversionRecord {
  ids: readonly number[];
}

const loaded = new WeakMap<CLIPTextModel, Map<string, Loaded>>();

/** Vectors of a file for one text encoder: [count, size]. */
interface Vectors {
  count: number;
  size: number;
  data: Float32Array;
}

/**
 * Teaches text encoders a word: its vectors become embeddings, which the word in a prompt stands for, one token each.
 * Source: diffusers/loaders/textual_inversion.py (Gal et al. 2022).
 *
 * @param encodings the pipeline's text encoders; a file of XL has vectors for both
 * @throws StateDictError for a file of another model, InvalidArgumentError for a word that is taken
 */
export async function loadTextualInversion(
  encodings: readonly TextEncoding[],
  pathOrId: string,
  { token: given, ...where }: TextualInversionOptions = {},
): Promise<string> {
  expectThat(given === undefined || (is.string(given) && given.trim() !== ''), WHERE, 'token', 'a word', given);
  const path = await findWeightsFile(pathOrId, where, FILE_NAME);
  const dict = await openSafetensors(path);
  try {
    const { name, keys } = keysOf(dict, path);
    const token = given ?? name ?? baseName(path).slice(0, -extensionOf(path).length || undefined);
    const vectors = await Promise.all(keys.map((key) => readVectors(dict, key, path)));
    const pairs = matchEncoders(encodings, vectors, path);
    for (const [{ tokenizer }] of pairs) {
      checkFree(clipTokenizer(tokenizer), token);
    }
    const file = await identifyFile(baseName(path), await files.readBytes(path));
    for (const [encoding, own] of pairs) {
      add(encoding, { token, file }, own);
    }
    return token;
  } finally {
    await dict.close();
  }
}

/** The tensors of a file: {token: vectors} (diffusers), {emb_params} (the web UI), {clip_l, clip_g} (XL). */
function keysOf(dict: StateDict, path: string): { name: string | undefined; keys: string[] } {
  const keys = dict.keys();
  const pair = ['clip_l', 'clip_g'].filter((key) => keys.includes(key));
  if (pair.length > 0 && pair.length === keys.length) {
    return { name: undefined, keys: pair };
  }
  if (keys.length !== 1) {
    throw new StateDictError(
      `'${path}' is no textual inversion: it expects one tensor, or clip_l and clip_g; it holds ${keys.length} such as ` +
        `'${keys[0]}'`,
    );
  }
  return { name: keys[0] === 'emb_params' ? undefined : keys[0]!, keys };
}

async function readVectors(dict: StateDict, key: string, path: string): Promise<Vectors> {
  const { shape, dtype } = dict.info(key)!;
  const [count, size] = shape.length === 1 ? [1, shape[0]!] : shape;
  if (shape.length > 2 || !count || !size) {
    throw new StateDictError(`'${path}': tensor '${key}' expects vectors [count, size], got [${shape}]`);
  }
  return { count, size, data: decodeToFloat32(await dict.read(key), dtype) };
}

/** The text encoders that the vectors are for. */
function matchEncoders(encodings: readonly TextEncoding[], vectors: readonly Vectors[], path: string) {
  return vectors.map((own): [TextEncoding, Vectors] => {
    const found = encodings.find(({ textEncoder }) => textEncoder.parsed.hiddenSize === own.size);
    if (!found) {
      const sizes = encodings.map(({ textEncoder }) => textEncoder.parsed.hiddenSize).join(' and ');
      throw new StateDictError(
        `'${path}' is a textual inversion for another model: its vectors have ${own.size} numbers, those of this ` +
          `pipeline's text encoders ${sizes}`,
      );
    }
    return [found, own];
  });
}

function clipTokenizer(tokenizer: unknown): CLIPTokenizer {
  if (!(tokenizer instanceof CLIPTokenizer)) {
    throw new InvalidArgumentError(`[${WHERE}] the tokenizer expects a CLIPTokenizer, which words can be added to`);
  }
  return tokenizer;
}

function checkFree(tokenizer: CLIPTokenizer, token: string): void {
  if (tokenizer.hasToken(token)) {
    throw invalid(WHERE, 'token', 'a word that is no token yet; name another one', token);
  }
}

function add({ tokenizer, textEncoder }: TextEncoding, record: TextualInversionRecord, vectors: Vectors): void {
  const ids = textEncoder.addEmbeddings(vectors.data);
  clipTokenizer(tokenizer).addToken(record.token, ids);
  const known = loaded.get(textEncoder) ?? new Map<string, Loaded>();
  loaded.set(textEncoder, known.set(record.token, { ...record, ids }));
}

/** The textual inversions of text encoders, in the order of loading. */
export function textualInversions(encodings: readonly TextEncoding[]): TextualInversionRecord[] {
  const all = encodings.flatMap(({ textEncoder }) => [...(loaded.get(textEncoder)?.values() ?? [])]);
  const byToken = new Map(all.map(({ token, file }) => [token, { token, file }]));
  return [...byToken.values()];
}

/**
 * Takes words out again; all of them when none is named.
 *
 * @throws InvalidArgumentError for words that are not loaded
 */
export function unloadTextualInversion(encodings: readonly TextEncoding[], tokens?: string | readonly string[]): void {
  const known = textualInversions(encodings).map(({ token }) => token);
  const chosen = tokens === undefined ? known : [tokens].flat();
  for (const token of chosen) {
    if (!known.includes(token)) {
      throw invalid('unloadTextualInversion', 'tokens', `words that are loaded (${known.join(', ') || 'none'})`, token);
    }
  }
  for (const { tokenizer, textEncoder } of encodings) {
    for (const token of chosen) {
      const found = loaded.get(textEncoder)?.get(token);
      if (found) {
        clipTokenizer(tokenizer).removeToken(token);
        textEncoder.removeEmbeddings(found.ids);
        loaded.get(textEncoder)!.delete(token);
      }
    }
  }
}
