import type { Tensor4D } from '@tensorflow/tfjs-core';
import { Conv2d, type Weights } from '../../nn/index.js';
import { chain } from '../blocks/chain.js';
import type { ControlNetConfig } from './controlnet_config.js';

type Layer = (x: Tensor4D) => Tensor4D;

/** A control picture to features of the latents' size (diffusers/models/controlnets/controlnet.py). */
export class ControlNetConditioningEmbedding {
  private readonly layers: Layer[];
  /** Pixels per feature along an edge. */
  readonly scaleFactor: number;

  constructor(w: Weights, config: ControlNetConfig) {
    const channels = config.conditioningEmbeddingOutChannels;
    const [first, last] = [channels[0]!, channels.at(-1)!];
    this.scaleFactor = 2 ** (channels.length - 1);
    const activated =
      (conv: Conv2d): Layer =>
      (x) =>
        conv.forward(x, { activation: 'silu' });
    const blocks = channels.slice(1).flatMap((out, i) => {
      const [same, halving] = [2 * i, 2 * i + 1].map((place) => w.at('blocks').at(place)) as [Weights, Weights];
      return [
        activated(new Conv2d(same, channels[i]!, channels[i]!, 3, { padding: 1 })),
        activated(new Conv2d(halving, channels[i]!, out, 3, { padding: 1, stride: 2 })),
      ];
    });
    const convIn = new Conv2d(w.at('conv_in'), config.conditioningChannels, first, 3, { padding: 1 });
    const convOut = new Conv2d(w.at('conv_out'), last, config.blockOutChannels[0]!, 3, { padding: 1 });
    this.layers = [activated(convIn), ...blocks, (x) => convOut.forward(x)];
  }

  /** [B,H,W,conditioning_channels] -> [B,H/8,W/8,block_out_channels[0]]. */
  forward(image: Tensor4D): Tensor4D {
    return chain(image, ...this.layers);
  }
}
