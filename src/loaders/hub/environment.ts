import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { InvalidArgumentError } from '../../errors.js';

/** The variables that Hugging Face's own libraries obey (huggingface_hub/constants.py), read anew at each call. */
type Environment = Readonly<Record<string, string | undefined>>;

/** Value of the first of `names` that is set and not empty. */
function variable(env: Environment, ...names: string[]): string | undefined {
  return names.map((name) => env[name]?.trim()).find((value) => value);
}

function directory(env: Environment, ...names: string[]): string | undefined {
  const path = variable(env, ...names);
  return path?.replace(/^~(?=$|[/\\])/, homedir());
}

const isTrue = (value: string | undefined): boolean => /^(1|on|yes|true)$/i.test(value ?? '');

/** HF_HOME, or `huggingface` under XDG_CACHE_HOME or ~/.cache. */
export function hubHome(env: Environment = process.env): string {
  return (
    directory(env, 'HF_HOME') ?? join(directory(env, 'XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'huggingface')
  );
}

/** Directory of the cache that all Hugging Face libraries share: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE or HF_HOME/hub. */
export function hubCacheDir(env: Environment = process.env): string {
  return directory(env, 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE') ?? join(hubHome(env), 'hub');
}

/**
 * HF_ENDPOINT, or the public hub; without a slash at the end.
 * @throws {InvalidArgumentError} when HF_ENDPOINT is no address
 */
export function hubEndpoint(env: Environment = process.env): string {
  const endpoint = variable(env, 'HF_ENDPOINT') ?? 'https://huggingface.co';
  if (!/^https?:\/\//i.test(endpoint) || !URL.canParse(endpoint)) {
    throw new InvalidArgumentError(`HF_ENDPOINT must be an address like https://huggingface.co, got '${endpoint}'`);
  }
  return endpoint.replace(/\/+$/, '');
}

/** Whether HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids the network. */
export function isOffline(env: Environment = process.env): boolean {
  return isTrue(env.HF_HUB_OFFLINE) || isTrue(env.TRANSFORMERS_OFFLINE);
}

/** HF_TOKEN, or the token that `hf auth login` stored (HF_TOKEN_PATH or HF_HOME/token); undefined when there is none. */
export async function hubToken(env: Environment = process.env): Promise<string | undefined> {
  if (isTrue(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) {
    return undefined;
  }
  const given = variable(env, 'HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN');
  if (given) {
    return given;
  }
  const path = directory(env, 'HF_TOKEN_PATH') ?? join(hubHome(env), 'token');
  const stored = await readFile(path, 'utf8').catch(() => '');
  return stored.trim() || undefined;
}
