import { files } from '#platform';
import { readJsonObject, readText } from '../config/config.js';
import { CheckpointError, ConfigError } from '../errors.js';
import { describe, invalid, is } from '../utils/check.js';
import { joinPath } from '../utils/paths.js';
import { type AddedToken, specialToken } from './tokenizer_json.js';

/** The special tokens that a checkpoint names; CLIP uses the first four. */
const SPECIAL_TOKENS = [
  'bos_token',
  'eos_token',
  'unk_token',
  'sep_token',
  'pad_token',
  'cls_token',
  'mask_token',
] as const;

const DEFAULTS: Record<string, string> = {
  bos_token: '<|startoftext|>',
  eos_token: '<|endoftext|>',
  unk_token: '<|endoftext|>',
  pad_token: '<|endoftext|>',
};

/** Everything that a tokenizer directory says. */
export interface TokenizerFiles {
  vocab: Record<string, number>;
  merges: [string, string][];
  bosToken: string;
  eosToken: string;
  unkToken: string;
  padToken: string;
  addedTokens: AddedToken[];
  modelMaxLength: number;
  paddingSide: 'left' | 'right';
  truncationSide: 'left' | 'right';
}

type Json = Record<string, unknown>;

/**
 * Reads a tokenizer directory as transformers' CLIPTokenizer.from_pretrained does: vocabulary and merges from
 * tokenizer.json if there is one, else from vocab.json and merges.txt; special tokens from tokenizer_config.json and,
 * unless that lists `added_tokens_decoder`, special_tokens_map.json over it.
 *
 * @throws CheckpointError when the vocabulary or the merges are missing or damaged.
 * @throws ConfigError when tokenizer_config.json or special_tokens_map.json is damaged.
 */
export async function readTokenizerFiles(dir: string): Promise<TokenizerFiles> {
  const config = (await readJsonObject(joinPath(dir, 'tokenizer_config.json'), ConfigError)) ?? {};
  const tokenizerJson = await readJsonObject(joinPath(dir, 'tokenizer.json'), CheckpointError);
  const { vocab, merges } = tokenizerJson ? fromTokenizerJson(dir, tokenizerJson) : await fromVocabAndMerges(dir);
  checkVocab(dir, tokenizerJson ? 'tokenizer.json' : 'vocab.json', vocab);
  checkMerges(dir, tokenizerJson ? 'tokenizer.json' : 'merges.txt', merges, vocab);
  return { vocab, merges, ...(await readTokens(dir, config, tokenizerJson)), ...readLimits(dir, config) };
}

function readLimits(
  dir: string,
  config: Json,
): Pick<TokenizerFiles, 'modelMaxLength' | 'paddingSide' | 'truncationSide'> {
  const max = config.model_max_length ?? config.max_len ?? 77;
  if (typeof max !== 'number' || !(max >= 2)) {
    throw new ConfigError(
      `[tokenizer] '${joinPath(dir, 'tokenizer_config.json')}': model_max_length expects an integer of at least 2, ` +
        `got ${JSON.stringify(max)}`,
    );
  }
  const side = (key: string): 'left' | 'right' => {
    const value = config[key] ?? 'right';
    if (value !== 'left' && value !== 'right') {
      throw new ConfigError(
        `[tokenizer] '${joinPath(dir, 'tokenizer_config.json')}': ${key} expects 'left' or 'right', ` +
          `got ${JSON.stringify(value)}`,
      );
    }
    return value;
  };
  // transformers writes 1e30 where the length is unknown; CLIP's text encoder always has 77 positions.
  const modelMaxLength = max > 1e6 ? 77 : Math.floor(max);
  return { modelMaxLength, paddingSide: side('padding_side'), truncationSide: side('truncation_side') };
}

async function readTokens(
  dir: string,
  config: Json,
  tokenizerJson: Json | undefined,
): Promise<Pick<TokenizerFiles, 'bosToken' | 'eosToken' | 'unkToken' | 'padToken' | 'addedTokens'>> {
  const configFile = joinPath(dir, 'tokenizer_config.json');
  const named = new Map<string, AddedToken>();
  for (const key of SPECIAL_TOKENS) {
    setToken(named, key, config[key] ?? DEFAULTS[key], false, configFile);
  }
  const extra = [config.additional_special_tokens, config.extra_special_tokens].flat();
  let listed: AddedToken[];
  if (config.added_tokens_decoder) {
    listed = decoderTokens(config.added_tokens_decoder, configFile);
  } else {
    extra.push(...(await readSpecialTokensMap(dir, named)));
    listed = await readAddedTokens(dir, named, tokenizerJson);
  }
  const extraTokens = extra
    .filter((value) => value !== undefined && value !== null)
    .map((value) => parseToken(value, 'additional_special_tokens', true, configFile));
  return {
    bosToken: named.get('bos_token')!.content,
    eosToken: named.get('eos_token')!.content,
    unkToken: named.get('unk_token')!.content,
    padToken: named.get('pad_token')!.content,
    addedTokens: [...listed, ...mentioned([...named.values(), ...extraTokens], listed)],
  };
}

/** The tokens of added_tokens_decoder by their ids. */
function decoderTokens(decoder: unknown, file: string): AddedToken[] {
  if (!is.object(decoder)) {
    throw invalid('tokenizer', `'${file}': added_tokens_decoder`, 'an object from ids to tokens', decoder, ConfigError);
  }
  const entries = Object.entries(decoder).sort(([a], [b]) => Number(a) - Number(b));
  return entries.map(([, value]) => parseToken(value, 'added_tokens_decoder', false, file));
}

/** Takes special_tokens_map.json into `named`; gives its further tokens. */
async function readSpecialTokensMap(dir: string, named: Map<string, AddedToken>): Promise<unknown[]> {
  const file = joinPath(dir, 'special_tokens_map.json');
  const map = (await readJsonObject(file, ConfigError)) ?? {};
  for (const key of SPECIAL_TOKENS) {
    setToken(named, key, map[key], true, file);
  }
  return [map.additional_special_tokens, map.extra_special_tokens].flat();
}

/** The tokens of added_tokens.json and tokenizer.json by their ids. */
async function readAddedTokens(
  dir: string,
  named: ReadonlyMap<string, AddedToken>,
  tokenizerJson: Json | undefined,
): Promise<AddedToken[]> {
  const numbered = new Map<number, AddedToken>();
  const isSpecial = (content: string) => [...named.values()].some((token) => token.content === content);
  const added = (await readJsonObject(joinPath(dir, 'added_tokens.json'), ConfigError)) ?? {};
  for (const [content, id] of Object.entries(added)) {
    const special = isSpecial(content);
    numbered.set(Number(id), { ...specialToken(content), special, normalized: !special });
  }
  for (const [id, token] of addedTokensOf(tokenizerJson, joinPath(dir, 'tokenizer.json'))) {
    numbered.set(id, token);
  }
  return [...numbered].sort(([a], [b]) => a - b).map(([, token]) => token);
}

/**
 * Special tokens that are not listed. As in transformers, a token named twice is looked for as its last mention says:
 * "pad_token": "<|endoftext|>" makes of an eos_token with normalized: true one that is found as written.
 */
function mentioned(tokens: readonly AddedToken[], listed: readonly AddedToken[]): Iterable<AddedToken> {
  const found = new Map<string, AddedToken>();
  for (const token of tokens) {
    if (!listed.some((other) => other.content === token.content)) {
      found.set(token.content, { ...token, special: true });
    }
  }
  return found.values();
}

/** The tokens that tokenizer.json adds to its vocabulary, with their ids. */
function addedTokensOf(tokenizerJson: Json | undefined, file: string): [id: number, token: AddedToken][] {
  const added = tokenizerJson?.added_tokens ?? [];
  if (!Array.isArray(added)) {
    throw invalid('tokenizer', `'${file}': added_tokens`, 'a list of tokens', added, CheckpointError);
  }
  return added.map((value: unknown) => {
    const token = parseToken(value, 'added_tokens', false, file);
    const { id } = Object(value) as { id?: unknown };
    if (!is.whole(id)) {
      throw invalid(
        'tokenizer',
        `'${file}': the id of ${describe(token.content)}`,
        'a whole number',
        id,
        CheckpointError,
      );
    }
    return [id, token];
  });
}

function setToken(named: Map<string, AddedToken>, key: string, value: unknown, special: boolean, file: string): void {
  if (value !== undefined && value !== null) {
    named.set(key, parseToken(value, key, special, file));
  }
}

/** A token as a string or as `{content, lstrip, normalized, ...}`. A string is found in the text as written. */
function parseToken(value: unknown, key: string, special: boolean, file: string): AddedToken {
  if (typeof value === 'string' && value !== '') {
    return specialToken(value);
  }
  const fields = value as Partial<AddedToken> | null;
  if (typeof fields === 'object' && typeof fields?.content === 'string' && fields.content !== '') {
    const isSpecial = special || fields.special === true;
    return {
      content: fields.content,
      special: isSpecial,
      normalized: fields.normalized ?? !isSpecial,
      lstrip: fields.lstrip === true,
      rstrip: fields.rstrip === true,
      single_word: fields.single_word === true,
    };
  }
  throw new ConfigError(
    `[tokenizer] '${file}': ${key} expects a token, a string or {"content": string}, got ${describe(value)}`,
  );
}

function fromTokenizerJson(dir: string, json: Json): { vocab: Record<string, number>; merges: [string, string][] } {
  const file = joinPath(dir, 'tokenizer.json');
  const model = json.model as Json | undefined;
  if (typeof model !== 'object' || model === null || (model.type ?? 'BPE') !== 'BPE' || !Array.isArray(model.merges)) {
    throw new CheckpointError(
      `[tokenizer] '${file}' expects a CLIP tokenizer, {"model": {"type": "BPE", "vocab": ..., "merges": ...}}, ` +
        `got a model of type ${JSON.stringify(model?.type)}`,
    );
  }
  const merges = model.merges.map((merge: unknown, i): [string, string] =>
    parseMerge(typeof merge === 'string' ? merge.split(' ') : merge, `'${file}': merge ${i}`),
  );
  return { vocab: model.vocab as Record<string, number>, merges };
}

async function fromVocabAndMerges(dir: string): Promise<{ vocab: Record<string, number>; merges: [string, string][] }> {
  const vocab = await readJsonObject(joinPath(dir, 'vocab.json'), CheckpointError);
  const mergesFile = joinPath(dir, 'merges.txt');
  if (vocab === undefined || (await files.kind(mergesFile)) === undefined) {
    throw new CheckpointError(await missing(dir, vocab === undefined ? 'vocab.json' : 'merges.txt'));
  }
  const text = await readText(mergesFile, CheckpointError);
  const merges: [string, string][] = [];
  text.split(/\r?\n/).forEach((line, i) => {
    if (line !== '' && !line.startsWith('#version')) {
      merges.push(parseMerge(line.split(' '), `'${joinPath(dir, 'merges.txt')}': line ${i + 1}`));
    }
  });
  return { vocab: vocab as Record<string, number>, merges };
}

async function missing(dir: string, file: string): Promise<string> {
  const expected = 'a tokenizer directory has vocab.json and merges.txt, or tokenizer.json';
  if ((await files.kind(dir)) !== 'directory') {
    return `[tokenizer] '${dir}' is not a directory; ${expected}`;
  }
  const nested = await files.kind(joinPath(dir, 'tokenizer'));
  const hint = nested === 'directory' ? `; did you mean '${joinPath(dir, 'tokenizer')}'?` : '';
  return `[tokenizer] '${joinPath(dir, file)}' does not exist; ${expected}${hint}`;
}

function parseMerge(parts: unknown, place: string): [string, string] {
  if (!Array.isArray(parts) || parts.length !== 2 || !parts.every((part) => typeof part === 'string' && part !== '')) {
    throw new CheckpointError(
      `[tokenizer] ${place} expects two tokens with one space between, got ${JSON.stringify(parts)}`,
    );
  }
  return [parts[0], parts[1]];
}

function checkVocab(dir: string, name: string, vocab: unknown): void {
  const file = joinPath(dir, name);
  if (typeof vocab !== 'object' || vocab === null || Array.isArray(vocab) || Object.keys(vocab).length === 0) {
    throw new CheckpointError(`[tokenizer] '${file}' expects a vocabulary, {"token": id, ...}, got none`);
  }
  const owners = new Map<number, string>();
  for (const [token, id] of Object.entries(vocab)) {
    if (!Number.isInteger(id) || id < 0 || id >= 2 ** 24) {
      throw new CheckpointError(
        `[tokenizer] '${file}': the id of ${JSON.stringify(token)} expects an integer from 0, got ${JSON.stringify(id)}`,
      );
    }
    const owner = owners.get(id);
    if (owner !== undefined) {
      throw new CheckpointError(
        `[tokenizer] '${file}': ${JSON.stringify(owner)} and ${JSON.stringify(token)} have the same id ${id}`,
      );
    }
    owners.set(id, token);
  }
}

function checkMerges(dir: string, name: string, merges: [string, string][], vocab: Record<string, number>): void {
  for (const [a, b] of merges) {
    const absent = [a, b, a + b].find((token) => !Object.hasOwn(vocab, token));
    if (absent !== undefined) {
      throw new CheckpointError(
        `[tokenizer] '${joinPath(dir, name)}': the merge "${a} ${b}" needs the token ${JSON.stringify(absent)}, which the ` +
          'vocabulary lacks; the two files are not of the same tokenizer',
      );
    }
  }
}
