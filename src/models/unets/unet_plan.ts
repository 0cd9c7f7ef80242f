import type { AttentionOptions } from '../../attention/index.js';
import type { DownBlockConfig, MidBlockConfig, UpBlockConfig } from './unet_2d_blocks.js';
import type { UNetConfig } from './unet_2d_condition_config.js';

/** The blocks that a UNet's configuration describes. */
export interface UNetPlan {
  down: DownBlockConfig[];
  /** null for a UNet without a middle block. */
  mid: MidBlockConfig | null;
  up: UpBlockConfig[];
}

/** Channels of the time embedding. */
export function timeDimOf(config: Pick<UNetConfig, 'timeEmbeddingDim' | 'blockOutChannels'>): number {
  return config.timeEmbeddingDim ?? config.blockOutChannels[0]! * 4;
}

/** The configuration of every block (diffusers/models/unets/unet_2d_condition.py, __init__). */
export function planUNet(config: UNetConfig, attention: AttentionOptions): UNetPlan {
  const channels = config.blockOutChannels;
  const last = channels.length - 1;
  const timeDim = timeDimOf(config);
  const resnet = {
    tembChannels: config.classEmbeddingsConcat ? 2 * timeDim : timeDim,
    groups: config.normNumGroups,
    epsilon: config.normEps,
    timeScaleShift: config.resnetTimeScaleShift,
  };
  const transformer = (i: number, layers: number | number[], onlyCrossAttention: boolean) => ({
    heads: config.numAttentionHeads[i]!,
    layers,
    crossAttentionDim: config.crossAttentionDim[i]!,
    groups: config.normNumGroups,
    useLinearProjection: config.useLinearProjection,
    onlyCrossAttention,
    upcastAttention: config.upcastAttention,
    attention,
  });
  const down = config.downBlockTypes.map((type, i) => ({
    inChannels: channels[Math.max(i - 1, 0)]!,
    outChannels: channels[i]!,
    numLayers: config.layersPerBlock[i]!,
    addDownsample: i < last,
    downsamplePadding: config.downsamplePadding,
    resnet,
    transformer:
      type === 'CrossAttnDownBlock2D'
        ? transformer(i, config.transformerLayersPerBlock[i]!, config.onlyCrossAttention[i]!)
        : null,
  }));
  const mid = config.midBlockType && {
    channels: channels[last]!,
    resnet: { ...resnet, outputScaleFactor: config.midBlockScaleFactor },
    // diffusers gives only_cross_attention to the way down and up alone
    transformer:
      config.midBlockType === 'UNetMidBlock2DCrossAttn'
        ? transformer(last, config.transformerLayersPerBlock[last]!, false)
        : null,
  };
  const up = config.upBlockTypes.map((type, i) => {
    const level = last - i;
    return {
      inChannels: channels[Math.max(level - 1, 0)]!,
      outChannels: channels[level]!,
      prevOutputChannel: channels[Math.min(level + 1, last)]!,
      numLayers: config.layersPerBlock[level]! + 1,
      addUpsample: i < last,
      resnet,
      transformer:
        type === 'CrossAttnUpBlock2D'
          ? transformer(level, config.transformerLayersPerUpBlock[i]!, config.onlyCrossAttention[level]!)
          : null,
    };
  });
  return { down, mid, up };
}
