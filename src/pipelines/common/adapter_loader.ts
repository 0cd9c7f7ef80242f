import {
  activeAdapters,
  checkLoaded,
  deleteAdapters,
  enableLora,
  type FuseLoraOptions,
  fuseLora,
  type LoraOptions,
  type LoraRecord,
  loadLora,
  loraNames,
  loraRecords,
  setAdapters,
  unfuseLora,
  unloadLora,
  withLora,
} from '../../adapters/lora/lora.js';
import type { LoraModels } from '../../adapters/lora/lora_file.js';
import type { LoraWeight } from '../../adapters/lora/lora_weights.js';
import {
  loadTextualInversion,
  type TextEncoding,
  type TextualInversionOptions,
  unloadTextualInversion,
} from '../../adapters/textual_inversion.js';
import { CLIPTextModel } from '../../models/index.js';
import { Model } from '../../models/model.js';
import { Callable, type Prompt } from './callable.js';
import { loraTags } from './lora_tags.js';

/** What of a call's options is about adapters. */
interface AdapterOptions {
  crossAttentionKwargs?: { scale?: number };
  promptSyntax?: string;
}

/** The components of a pipeline that LoRA files change. */
export function loraModels(components: object): LoraModels {
  const { unet, textEncoder, textEncoder2 } = components as Record<string, unknown>;
  const parts = Object.entries({ unet, textEncoder, textEncoder2 });
  return Object.fromEntries(parts.filter(([, part]) => part instanceof Model));
}

/** The text encoders of a pipeline that can learn words, each with its tokenizer. */
export function textEncodings(components: object): TextEncoding[] {
  const { tokenizer, textEncoder, tokenizer2, textEncoder2 } = components as Record<string, unknown>;
  const pairs = [
    { tokenizer, textEncoder },
    { tokenizer: tokenizer2, textEncoder: textEncoder2 },
  ];
  return pairs.filter((pair): pair is TextEncoding => pair.textEncoder instanceof CLIPTextModel);
}

/**
 * Adapters of a pipeline (diffusers/loaders/lora_base.py). They live in the models: pipelines that share models share
 * them.
 */
export abstract class AdapterLoader<Options> extends Callable<Options> {
  abstract get components(): object;

  /**
   * Loads a LoRA file in diffusers', PEFT's, kohya's or LyCORIS's form, and sets it to work. Others rest until
   * `setAdapters`.
   *
   * @param pathOrId a .safetensors file, a directory with one, a repository of the hub or an address of a file there
   * @throws StateDictError that lists the tensors that fit no layer, CheckpointError, DownloadError for a file that
   *   cannot be used, InvalidArgumentError for a name that is taken; nothing has changed then
   */
  loadLoraWeights(pathOrId: string, options: LoraOptions = {}): Promise<void> {
    return loadLora(loraModels(this.components), pathOrId, options);
  }

  /** Names of the LoRAs that are loaded. */
  getListAdapters(): string[] {
    return loraNames(loraModels(this.components));
  }

  /** Names of the LoRAs that are at work. */
  getActiveAdapters(): string[] {
    return activeAdapters(loraModels(this.components));
  }

  /**
   * Chooses the LoRAs that are at work from the next call on.
   *
   * @param weights one for all or one for each; a number, or by model: `{ unet: { down: 0.5, up: 1 }, textEncoder: 0 }`.
   *   Default 1
   * @throws InvalidArgumentError for names that are not loaded and weights that are none
   */
  setAdapters(names: string | readonly string[], weights?: LoraWeight | readonly LoraWeight[]): void {
    setAdapters(loraModels(this.components), names, weights);
  }

  /** Switches the LoRAs that are at work off, until `enableLora`. */
  disableLora(): void {
    enableLora(loraModels(this.components), false);
  }

  enableLora(): void {
    enableLora(loraModels(this.components), true);
  }

  /** Frees LoRAs. @throws InvalidArgumentError for names that are not loaded */
  deleteAdapters(names: string | readonly string[]): void {
    deleteAdapters(loraModels(this.components), names);
  }

  /** Frees all LoRAs. Those that are fused stay in the weights until `unfuseLora`. */
  unloadLoraWeights(): void {
    unloadLora(loraModels(this.components));
  }

  /** Makes LoRAs part of the weights, those at work or those that are named: calls cost no more than without, and savePretrained saves them. */
  fuseLora(options: FuseLoraOptions = {}): void {
    fuseLora(loraModels(this.components), options);
  }

  /**
   * Takes fused LoRAs out of the weights, by reading those from the checkpoint's files again.
   *
   * @throws InvalidArgumentError for models that were not loaded from files
   */
  unfuseLora(): Promise<void> {
    return unfuseLora(loraModels(this.components));
  }

  /**
   * Teaches the text encoders a word from a file of diffusers or of the web UI: one or several vectors, for XL those of
   * both encoders. The word in a prompt then stands for all of them. It is not saved by savePretrained.
   *
   * @param pathOrId a .safetensors file, a directory with one, a repository of the hub or an address of a file there
   * @returns the word: `token`, else the one in the file, else the file's name
   * @throws StateDictError for a file of another model, InvalidArgumentError for a word that is taken
   */
  loadTextualInversion(pathOrId: string, options: TextualInversionOptions = {}): Promise<string> {
    return loadTextualInversion(textEncodings(this.components), pathOrId, options);
  }

  /** Takes words out again; all of them when none is named. @throws InvalidArgumentError for words that are not loaded */
  unloadTextualInversion(tokens?: string | readonly string[]): void {
    unloadTextualInversion(textEncodings(this.components), tokens);
  }

  /** The LoRAs that are at work, for the metadata of pictures. */
  get loraRecords(): LoraRecord[] {
    return loraRecords(loraModels(this.components));
  }

  /**
   * Runs a call with the weights of LoRAs that its prompt and options ask for.
   *
   * @throws InvalidArgumentError for a prompt that names a LoRA that is not loaded
   */
  protected async withCallAdapters<T>(prompt: Prompt, options: AdapterOptions, call: () => Promise<T>): Promise<T> {
    const models = loraModels(this.components);
    const weights = options.promptSyntax === 'a1111' ? loraTags(prompt) : new Map<string, LoraWeight>();
    checkLoaded('prompt', models, [...weights.keys()]);
    return withLora(models, { weights, scale: options.crossAttentionKwargs?.scale ?? 1 }, call);
  }
}

/** A pipeline of whatever options, as far as its LoRAs and textual inversions are loaded. */
export type WithLora = Pick<AdapterLoader<never>, 'loadLoraWeights' | 'setAdapters' | 'loadTextualInversion'>;
