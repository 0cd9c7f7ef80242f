import { choice, count, flag, list, readConfig } from '../../config/fields.js';
import { MAX_BLOCKS, MAX_CHANNELS } from '../config_limits.js';
import type { ConfigJson } from '../model.js';
import { parseUNetConfig } from '../unets/unet_2d_condition_config.js';

/** What ControlNetModel's config.json has beside the entries of a UNet's way down. */
const FIELDS = {
  conditioning_channels: count(3, MAX_CHANNELS),
  controlnet_conditioning_channel_order: choice('rgb', ['rgb', 'bgr']),
  conditioning_embedding_out_channels: list(count(16, MAX_CHANNELS), [16, 32, 96, 256], MAX_BLOCKS),
  global_pool_conditions: flag(false),
};

/** The way up that mirrors a way down; a ControlNet's configuration has none. */
function mirrored(downBlockTypes: unknown): unknown {
  return Array.isArray(downBlockTypes)
    ? downBlockTypes.map((type) => String(type).replace('Down', 'Up')).reverse()
    : undefined;
}

/** Checks a ControlNet's config.json and fills in diffusers' defaults. */
export function parseControlNetConfig(json: ConfigJson, source: string) {
  const isOwn = ([name]: [string, unknown]) => name in FIELDS;
  const entries = Object.entries(json);
  const own = Object.fromEntries(entries.filter(isOwn));
  const shared: Record<string, unknown> = Object.fromEntries(entries.filter((entry) => !isOwn(entry)));
  const up = mirrored(shared.down_block_types);
  const unet = parseUNetConfig(up ? { ...shared, up_block_types: up } : shared, source);
  return { ...unet, ...readConfig(source, FIELDS, [], own) };
}

/** Checked configuration of a ControlNetModel. */
export type ControlNetConfig = ReturnType<typeof parseControlNetConfig>;
