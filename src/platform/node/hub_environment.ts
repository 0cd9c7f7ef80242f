import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** The variables that Hugging Face's own libraries obey (huggingface_hub/constants.py), read anew at each call. */
type Environment = Readonly<Record<string, string | undefined>>;

/** A directory that the first of `names` that is set and not empty gives. */
function directory(env: Environment, ...names: string[]): string | undefined {
  const path = names.map((name) => env[name]?.trim()).find((value) => value);
  return path?.replace(/^~(?=$|[/\\])/, homedir());
}

/** HF_HOME, or `huggingface` under XDG_CACHE_HOME or ~/.cache. */
function hubHome(env: Environment): string {
  return (
    directory(env, 'HF_HOME') ?? join(directory(env, 'XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'huggingface')
  );
}

/** Directory of the cache that all Hugging Face libraries share: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE or HF_HOME/hub. */
export function hubCacheDir(env: Environment = process.env): string {
  return directory(env, 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE') ?? join(hubHome(env), 'hub');
}

/** The token that `hf auth login` stored (HF_TOKEN_PATH or HF_HOME/token); undefined when there is none. */
export async function storedHubToken(env: Environment = process.env): Promise<string | undefined> {
  const path = directory(env, 'HF_TOKEN_PATH') ?? join(hubHome(env), 'token');
  const stored = await readFile(path, 'utf8').catch(() => '');
  return stored.trim() || undefined;
}
