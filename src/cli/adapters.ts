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
