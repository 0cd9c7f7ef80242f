import { ConfigError } from '../errors.js';
import { invalid } from '../utils/check.js';

/**
 * Bounds of what a config.json counts, far above any model that exists: a number beyond them comes from a damaged or
 * hostile file, and building what it says would use up memory or time.
 */
export const MAX_BLOCKS = 16;
/** Layers of one block, or of one encoder. */
export const MAX_LAYERS = 256;
/** Channels, heads, groups and edges of pictures. */
export const MAX_CHANNELS = 65_536;

/** @throws ConfigError unless the groups of a group norm divide the channels evenly */
export function checkGroups(source: string, groups: number, width: number): void {
  if (width % groups !== 0) {
    throw invalid(source, 'norm_num_groups', `a divisor of the ${width} channels of a block`, groups, ConfigError);
  }
}
