import { InvalidArgumentError as InvalidOption } from 'commander';
import type { WithLora } from '../pipelines/index.js';
import { baseName, extensionOf } from '../utils/paths.js';

/** A file of `--lora` and its weight. */
export interface LoraFlag {
  path: string;
  weight: number;
}

/** Reads one more of `file` or `file:weight`; the weight is what follows the last colon, where that is a number. */
export function loraOption(text: string, previous: unknown): LoraFlag[] {
  const [, path = text, weight] = /^(.*):\s*([+-]?(?:\d+\.?\d*|\.\d+))$/s.exec(text) ?? [];
  if (path === '') {
    throw new InvalidOption('Expected a file, or file:weight such as style.safetensors:0.8.');
  }
  return [...((previous as LoraFlag[] | undefined) ?? []), { path, weight: Number(weight ?? 1) }];
}

/** A file of `--embedding`, and the word that it teaches. */
export interface EmbeddingFlag {
  path: string;
  token?: string;
}

/** Reads one more of `file` or `word=file`; a word has no slashes. */
export function embeddingOption(text: string, previous: unknown): EmbeddingFlag[] {
  const [, token, path = text] = /^([^=/\\]+)=(.+)$/s.exec(text) ?? [];
  if (path === '') {
    throw new InvalidOption('Expected a file, or word=file such as my-cat=embedding.safetensors.');
  }
  return [...((previous as EmbeddingFlag[] | undefined) ?? []), token === undefined ? { path } : { path, token }];
}

/** Loads the textual inversions of the command line; gives their words. */
export async function loadEmbeddings(pipe: WithLora, embeddings: readonly EmbeddingFlag[] = []): Promise<string[]> {
  const words: string[] = [];
  for (const { path, token } of embeddings) {
    words.push(await pipe.loadTextualInversion(path, { token }));
  }
  return words;
}

/** What a file's LoRA is called in prompts: its name without the ending. */
const nameOf = (path: string) => baseName(path).slice(0, -extensionOf(path).length || undefined);

/** Loads the LoRAs of the command line and sets them to work. */
export async function loadLoras(pipe: WithLora, loras: readonly LoraFlag[] = []): Promise<void> {
  for (const { path } of loras) {
    await pipe.loadLoraWeights(path, { adapterName: nameOf(path) });
  }
  if (loras.length > 0) {
    pipe.setAdapters(
      loras.map(({ path }) => nameOf(path)),
      loras.map(({ weight }) => weight),
    );
  }
}
