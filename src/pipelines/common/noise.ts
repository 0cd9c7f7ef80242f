import { invalid } from '../../utils/check.js';
import { TorchGenerator } from '../../utils/torch_generator.js';
import type { GenerationOptions } from './options.js';

/** Where the noise comes from, and the seeds that are worth recording. */
export interface NoiseSource {
  generator: TorchGenerator | TorchGenerator[];
  /** One for the batch or one for each picture. */
  seeds: bigint[];
  /** Whether the seeds say it all: no generator has been drawn from, none is given twice. */
  fresh: boolean;
}

/**
 * The generators that a call's `seed` or `generator` stands for; a random seed when there is neither.
 *
 * @param pictures number of pictures in the batch
 * @throws InvalidArgumentError when there is neither one seed or generator for all nor one for each picture
 */
export function noiseSource(
  where: string,
  { seed, generator }: Pick<GenerationOptions, 'seed' | 'generator'>,
  pictures: number,
): NoiseSource {
  if (seed !== undefined && generator !== undefined) {
    throw invalid(where, 'seed', 'to be left out where a generator is given', seed);
  }
  for (const [name, list] of Object.entries({ seed, generator })) {
    if (Array.isArray(list) && list.length !== pictures) {
      throw invalid(where, name, `one for all, or a list with one for each of the ${pictures} pictures`, list);
    }
  }
  const source = generator ? many(generator) : seededGenerators(seed ?? randomSeed());
  const all = [source].flat();
  const fresh = generator === undefined || (new Set(all).size === all.length && all.every(isFresh));
  return { generator: source, seeds: all.map((g) => g.initialSeed()), fresh };
}

/** Whether a generator is as its seed made it. */
function isFresh(generator: TorchGenerator): boolean {
  const begin = new TorchGenerator(generator.initialSeed()).getState();
  return generator.getState().every((byte, i) => byte === begin[i]);
}

function many<T>(value: T | readonly T[]): T | T[] {
  return Array.isArray(value) ? [...value] : (value as T);
}

function seededGenerators(seed: number | bigint | readonly (number | bigint)[]): TorchGenerator | TorchGenerator[] {
  const seeds = many(seed);
  return Array.isArray(seeds) ? seeds.map((s) => new TorchGenerator(s)) : new TorchGenerator(seeds);
}

/** A random seed, short enough to be typed again. */
export function randomSeed(): number {
  return Math.floor(Math.random() * 2 ** 32);
}
