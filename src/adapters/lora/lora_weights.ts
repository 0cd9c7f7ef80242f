import type { Model } from '../../models/index.js';
import { expectThat, invalid, is } from '../../utils/check.js';

/** Weights of a UNet's blocks: one for all of a kind, for a block's layers of attention each, or block by block. */
type BlockWeight = number | readonly number[];
export interface BlockWeights {
  down?: BlockWeight | Readonly<Record<string, BlockWeight>>;
  mid?: BlockWeight;
  up?: BlockWeight | Readonly<Record<string, BlockWeight>>;
}

/** The weight of a LoRA in one model. */
export type ModelWeight = number | BlockWeights;

/** The weight of a LoRA: in all models, or by model. */
export type LoraWeight = number | { unet?: ModelWeight; textEncoder?: number; textEncoder2?: number };

const WHERE = 'setAdapters';

/**
 * The weight at each of a UNet's layers, from `{ down: 0.5, mid: 1, up: { block_1: [0.2, 0.4, 1] } }`; blocks that are not
 * named have 1, as have layers outside of blocks with attention. Source: diffusers/loaders/unet_loader_utils.py.
 *
 * @throws InvalidArgumentError for blocks that are not there or have no attention
 */
export function weightAt(model: Model, weight: ModelWeight): (path: string) => number {
  if (is.number(weight)) {
    return () => weight;
  }
  expectThat(is.object(weight), WHERE, 'a weight', 'a number, or an object of weights by block', weight);
  const places = Object.entries(weight).flatMap(([name, value]) => placesOf(attentionsOf(model), name, value));
  const at = (path: string) => places.find(([prefix]) => path.startsWith(prefix))?.[1];
  return (path) => at(path) ?? at(besideAttention(path)) ?? 1;
}

/** The layer of attention of the same number in the block, whose weight ResNet blocks and what comes after them have. */
function besideAttention(path: string): string {
  const [side, block, , number] = path.split('.');
  return `${side}.${block}.attentions.${number}.`;
}

/** The paths of the UNet's attention modules: 'down_blocks.1.attentions.0'. */
function attentionsOf(model: Model): string[] {
  const found = [...model.layers.keys()].map((path) => /^.*?\battentions\.\d+(?=\.)/.exec(path)?.[0]);
  return [...new Set(found.filter((path) => path !== undefined))];
}

/** Prefixes of paths and their weights that an entry of `BlockWeights` stands for. */
function placesOf(attentions: string[], name: string, value: unknown): [prefix: string, weight: number][] {
  expectThat(['down', 'mid', 'up'].includes(name), WHERE, 'blocks', "'down', 'mid' or 'up'", name);
  const blocks = is.object(value)
    ? Object.entries(value).map(
        ([block, weight]) => [`${name}_blocks.${block.replace(/^block_/, '')}`, weight] as const,
      )
    : [[name === 'mid' ? 'mid_block' : `${name}_blocks`, value] as const];
  return blocks.flatMap(([block, weight]) => blockPlaces(attentions, block, weight));
}

function blockPlaces(attentions: string[], block: string, weight: unknown): [string, number][] {
  const own = attentions.filter((path) => path.startsWith(`${block}.`));
  expectThat(own.length > 0, WHERE, 'blocks', 'blocks of this UNet that have attention', block);
  return own.map((path): [string, number] => {
    const index = Number(path.slice(path.lastIndexOf('.') + 1));
    const list = is.number(weight) ? [weight] : weight;
    if (!is.numbers(list) || (list.length !== 1 && list.length !== layersIn(own, path))) {
      throw invalid(
        WHERE,
        block,
        `a number, or ${layersIn(own, path)} numbers, one for each layer of attention`,
        weight,
      );
    }
    return [`${path}.`, list.length === 1 ? list[0]! : list[index]!];
  });
}

/** How many layers of attention the block has that a path lies in. */
function layersIn(attentions: string[], path: string): number {
  const block = path.slice(0, path.lastIndexOf('.') + 1);
  return attentions.filter((other) => other.startsWith(block)).length;
}
