import type { Tensor, Tensor1D, Tensor2D, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { KeyValueCache } from '../../attention/index.js';
import { toPhysicalType } from '../../backends/precision.js';
import type { PhysicalType } from '../../backends/types.js';
import { InvalidArgumentError } from '../../errors.js';
import { Conv2d, type Weights } from '../../nn/index.js';
import { silu } from '../../ops/index.js';
import type { BasicTransformerBlock } from '../blocks/basic_transformer_block.js';
import type { ResnetBlock2D } from '../blocks/resnet.js';
import type { ForwardStep } from '../offload.js';
import { type BlockInputs, DownBlock2D, MidBlock2D } from './unet_2d_blocks.js';
import type { UNetConfig } from './unet_2d_condition_config.js';
import { UNetConditioning, type UNetConditions } from './unet_conditioning.js';
import type { UNetPlan } from './unet_plan.js';

/** What is known of the prompt. */
export interface PromptInputs {
  /** [B, Nk]: 1 keeps a token of the prompt, 0 hides it. */
  encoderAttentionMask?: Tensor2D;
  /** Keys and values of the prompt, computed once for all steps. */
  cache?: KeyValueCache;
}

/** What other networks add on the way down. They stay the caller's. */
export interface DownPathResiduals {
  /** A ControlNet's: one for the input convolution, for every layer and for every downsampler. */
  downBlockAdditionalResiduals?: readonly Tensor4D[];
  /** A ControlNet's: added to the middle block's output. */
  midBlockAdditionalResidual?: Tensor4D;
  /** A T2I-Adapter's: one for each block of the way down, and for SDXL one for the middle block. */
  downIntrablockAdditionalResiduals?: readonly Tensor4D[];
}

/** The state of a pass between two blocks. */
export type UNetState = {
  hidden: Tensor4D;
  /** States of the way down, [N,H,W,C] each, that the way up joins in from the end. */
  skips: Tensor4D[];
};

/**
 * Input convolution, embeddings, the blocks of the way down and the middle block: what a UNet and its ControlNets have
 * in common. All of it hangs at the root of the checkpoint.
 */
export class UNetDownPath {
  readonly convIn: Conv2d;
  readonly conditioning: UNetConditioning;
  readonly downBlocks: readonly DownBlock2D[];
  readonly midBlock: MidBlock2D | null;

  /** @param where names the model in errors */
  constructor(
    w: Weights,
    private readonly config: UNetConfig,
    plan: UNetPlan,
    private readonly dtype: PhysicalType,
    private readonly where: string,
  ) {
    const { inChannels, blockOutChannels, convInKernel: kernel } = config;
    this.convIn = new Conv2d(w.at('conv_in'), inChannels, blockOutChannels[0]!, kernel, { padding: (kernel - 1) >> 1 });
    this.conditioning = new UNetConditioning(w, config, where);
    this.downBlocks = plan.down.map((block, i) => new DownBlock2D(w.at('down_blocks').at(i), block));
    this.midBlock = plan.mid && new MidBlock2D(w.at('mid_block'), plan.mid);
  }

  /** Paths of the blocks, in the order of computation. */
  get blockPaths(): string[] {
    const down = this.downBlocks.map((_, i) => `down_blocks.${i}`);
    return this.midBlock ? [...down, 'mid_block'] : down;
  }

  get transformerBlocks(): BasicTransformerBlock[] {
    const layers = this.downBlocks.flatMap((block) => block.layers);
    return [...layers, this.midBlock].flatMap((part) => part?.attention?.transformerBlocks ?? []);
  }

  get resnets(): ResnetBlock2D[] {
    const mid = [this.midBlock?.first, this.midBlock?.second].filter((resnet) => !!resnet);
    return [...this.downBlocks.flatMap((block) => block.layers.map(({ resnet }) => resnet)), ...mid];
  }

  /** @throws InvalidArgumentError when the shapes do not fit the configuration */
  checkInputs(sample: Tensor4D, encoderHiddenStates: Tensor3D): void {
    const { inChannels, crossAttentionDim } = this.config;
    if (sample.rank !== 4 || sample.shape[3] !== inChannels) {
      throw new InvalidArgumentError(
        `[${this.where}] sample expects [B,H,W,${inChannels}], got a tensor [${sample.shape}]`,
      );
    }
    const { rank, shape } = encoderHiddenStates;
    if (rank !== 3 || shape[2] !== crossAttentionDim[0] || shape[0] !== sample.shape[0]) {
      throw new InvalidArgumentError(
        `[${this.where}] encoderHiddenStates expects [${sample.shape[0]}, tokens, ${crossAttentionDim[0]}], ` +
          `got a tensor [${shape}]`,
      );
    }
  }

  /** What every block of one call gets. */
  blockInputs(
    sample: Tensor4D,
    timestep: number | Tensor1D,
    encoderHiddenStates: Tensor3D,
    inputs: UNetConditions & PromptInputs,
  ): BlockInputs {
    const { cache, encoderAttentionMask: mask } = inputs;
    const temb = toPhysicalType(this.conditioning.forward(sample.shape[0], timestep, inputs), this.dtype);
    return {
      temb: silu(temb),
      encoderHiddenStates:
        cache?.context(encoderHiddenStates, this.dtype) ?? toPhysicalType(encoderHiddenStates, this.dtype),
      encoderAttentionBias: mask ? tf.mul(tf.sub(1, tf.reshape(mask, [mask.shape[0], 1, 1, -1])), -10000) : undefined,
      cache,
      originalSize: { height: sample.shape[1], width: sample.shape[2] },
    };
  }

  /** The state after the input convolution. */
  start(sample: Tensor4D): UNetState {
    const centered = this.config.centerInputSample ? (tf.sub(tf.mul(sample, 2), 1) as Tensor4D) : sample;
    const hidden = this.convIn.forward(toPhysicalType(centered, this.dtype));
    return { hidden, skips: [hidden] };
  }

  /**
   * The blocks of the way down and the middle block.
   *
   * @throws InvalidArgumentError for residuals that do not fit
   */
  steps(inputs: BlockInputs, residuals: DownPathResiduals = {}): ForwardStep<UNetState>[] {
    this.checkResiduals(residuals);
    const { downBlockAdditionalResiduals: skips, downIntrablockAdditionalResiduals: adapter = [] } = residuals;
    const down = this.downBlocks.map((block, i) => this.downStep(block, i, inputs, adapter[i]));
    const control = skips ? [this.addToSkips(skips)] : [];
    const forMid = [adapter[this.downBlocks.length], residuals.midBlockAdditionalResidual];
    return [
      ...down,
      ...control,
      this.midStep(
        inputs,
        forMid.filter((residual) => !!residual),
      ),
    ];
  }

  private downStep(block: DownBlock2D, i: number, inputs: BlockInputs, residual?: Tensor4D): ForwardStep<UNetState> {
    return {
      block: `down_blocks.${i}`,
      run: ({ hidden, skips }) => {
        const states = block.forward(hidden, inputs, residual && toPhysicalType(residual, this.dtype));
        return { hidden: states.at(-1)!, skips: [...skips, ...states] };
      },
    };
  }

  private addToSkips(residuals: readonly Tensor4D[]): ForwardStep<UNetState> {
    return {
      block: null,
      run: ({ hidden, skips }) => ({ hidden, skips: skips.map((skip, i) => this.plus(skip, residuals[i]!)) }),
    };
  }

  private midStep(inputs: BlockInputs, residuals: readonly Tensor4D[]): ForwardStep<UNetState> {
    return {
      block: this.midBlock ? 'mid_block' : null,
      run: ({ hidden, skips }) => {
        const state = this.midBlock ? this.midBlock.forward(hidden, inputs) : tf.clone(hidden);
        return { hidden: residuals.reduce((sum, residual) => this.plus(sum, residual), state), skips };
      },
    };
  }

  private plus(x: Tensor4D, residual: Tensor4D): Tensor4D {
    return tf.add(x, toPhysicalType(residual, this.dtype));
  }

  private checkResiduals(residuals: DownPathResiduals): void {
    const { downBlockAdditionalResiduals: skips, midBlockAdditionalResidual: mid } = residuals;
    const blocks = this.downBlocks.length;
    if (!skips !== !mid) {
      throw new InvalidArgumentError(
        `[${this.where}] downBlockAdditionalResiduals and midBlockAdditionalResidual go together; ` +
          "a T2I-Adapter's are downIntrablockAdditionalResiduals",
      );
    }
    const counts = this.downBlocks.map(({ numStates }) => numStates);
    this.checkCount('downBlockAdditionalResiduals', skips, [counts.reduce((a, b) => a + b, 1)]);
    this.checkCount('downIntrablockAdditionalResiduals', residuals.downIntrablockAdditionalResiduals, [
      blocks,
      blocks + 1,
    ]);
  }

  private checkCount(name: string, tensors: readonly Tensor[] | undefined, counts: number[]): void {
    if (tensors && !counts.includes(tensors.length)) {
      throw new InvalidArgumentError(
        `[${this.where}] ${name} expects ${counts.join(' or ')} tensors, got ${tensors.length}`,
      );
    }
  }
}
