import type { LoraWeight } from '../../adapters/lora/lora_weights.js';
import { expectThat, is } from '../../utils/check.js';
import type { Prompt } from './callable.js';

/** `<lora:name:0.8>`; with two numbers the text encoder's weight and the UNet's (modules/extra_networks.py of the web UI). */
const TAG = /<lora:([^<>:]+)((?::[^<>:]*)*)>/g;

/** A prompt without its tags of LoRAs, which are no text to be drawn. */
export function withoutLoraTags(prompt: string): string {
  return prompt.replace(TAG, '');
}

/**
 * The LoRAs that prompts name in tags, and their weights. Prompts of a batch are drawn together, so that all of them have
 * to name the same.
 *
 * @throws InvalidArgumentError for a weight that is no number and prompts that differ
 */
export function loraTags(prompt: Prompt): Map<string, LoraWeight> {
  // what is no text is refused where prompts are checked
  const texts = [prompt ?? []].flat().filter(is.string);
  const [first = new Map<string, LoraWeight>(), ...others] = texts.map(tagsOf);
  const same = others.every((tags) => JSON.stringify([...tags]) === JSON.stringify([...first]));
  expectThat(same, 'prompt', '<lora:...>', 'the same in all prompts of a call', prompt);
  return first;
}

function tagsOf(prompt: string): Map<string, LoraWeight> {
  return new Map([...prompt.matchAll(TAG)].map(([tag, name, rest]) => [name!.trim(), weightOf(tag, rest!)]));
}

function weightOf(tag: string, rest: string): LoraWeight {
  const numbers = rest
    .split(':')
    .slice(1)
    .map((text) => (text.trim() === '' ? Number.NaN : Number(text)));
  const usable = numbers.length <= 2 && numbers.every(is.number);
  expectThat(
    usable,
    'prompt',
    '<lora:name:weight>',
    'one number, or one for the text encoder and one for the UNet',
    tag,
  );
  const [text = 1, unet = text] = numbers;
  return text === unet ? unet : { unet, textEncoder: text, textEncoder2: text };
}
