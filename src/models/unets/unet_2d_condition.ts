import type { Tensor, Tensor1D, Tensor2D, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { CrossAttention, KeyValueCache } from '../../attention/index.js';
import { toPhysicalType } from '../../backends/precision.js';
import { InvalidArgumentError } from '../../errors.js';
import { Conv2d, Embedding, GroupNorm, Linear, type Parameter, Weights } from '../../nn/index.js';
import { silu, timestepEmbedding } from '../../ops/index.js';
import type { BasicTransformerBlock } from '../blocks/basic_transformer_block.js';
import { TimestepEmbedding } from '../blocks/embeddings.js';
import type { ResnetBlock2D } from '../blocks/resnet.js';
import {
  type ConfigJson,
  type FromConfigOptions,
  type LoadModelOptions,
  loadModel,
  Model,
  type ModelOptions,
  modelFromConfig,
} from '../model.js';
import { type BlockConfig, type BlockInputs, DownBlock2D, MidBlock2D, UpBlock2D } from './unet_2d_blocks.js';
import { parseUNetConfig, type UNetConfig } from './unet_2d_condition_config.js';

export interface UNetInputs {
  /** [B], or [B, dim] with class_embed_type 'projection', 'simple_projection' or 'identity'. */
  classLabels?: Tensor;
  /** Guidance embedding of distilled models, [B, time_cond_proj_dim]. */
  timestepCond?: Tensor2D;
  /** addition_embed_type 'text_time': pooled text embeddings [B, D] and time ids [B, 6]. */
  addedCond?: { textEmbeds: Tensor2D; timeIds: Tensor2D };
  /** [B, Nk]: 1 keeps a token of the prompt, 0 hides it. */
  encoderAttentionMask?: Tensor2D;
  /** Keys and values of the prompt, computed once for all steps. */
  cache?: KeyValueCache;
}

/**
 * The denoising UNet of Stable Diffusion, conditioned on text (diffusers/models/unets/unet_2d_condition.py; Ronneberger
 * et al. 2015, Rombach et al. 2022).
 */
export class UNet2DConditionModel extends Model {
  static readonly weightsName = 'diffusion_pytorch_model';

  readonly parsed: UNetConfig;
  private readonly convIn: Conv2d;
  private readonly timeEmbedding: TimestepEmbedding;
  private readonly classEmbedding: Embedding | TimestepEmbedding | Linear | null;
  private readonly addEmbedding: TimestepEmbedding | null;
  private readonly convNormOut: GroupNorm;
  private readonly convOut: Conv2d;
  readonly downBlocks: DownBlock2D[] = [];
  readonly midBlock: MidBlock2D | null;
  readonly upBlocks: UpBlock2D[] = [];
  /** While the model is offloaded: only the block at work is in memory. */
  sequentialOffload = false;
  private readonly blockParameters = new Map<object, readonly Parameter[]>();
  private readonly outsideBlocks: readonly Parameter[];

  constructor(json: ConfigJson, options: ModelOptions & { source?: string } = {}) {
    const w = Weights.root(options.dtype);
    super(json, w, options);
    const config = parseUNetConfig(json, options.source ?? 'unet/config.json');
    this.parsed = config;
    const channels = config.blockOutChannels;
    const first = channels[0]!;
    const timeDim = config.timeEmbeddingDim ?? first * 4;
    this.convIn = new Conv2d(w.at('conv_in'), config.inChannels, first, config.convInKernel, {
      padding: (config.convInKernel - 1) >> 1,
    });
    this.timeEmbedding = new TimestepEmbedding(w.at('time_embedding'), first, timeDim, {
      condProjDim: config.timeCondProjDim,
      postAct: config.timestepPostAct !== null,
    });
    this.classEmbedding = classEmbedding(w.at('class_embedding'), config, timeDim);
    this.addEmbedding = config.additionEmbedType
      ? new TimestepEmbedding(w.at('add_embedding'), config.projectionClassEmbeddingsInputDim!, timeDim)
      : null;
    const { attention } = this;
    const resnet = {
      tembChannels: config.classEmbeddingsConcat ? 2 * timeDim : timeDim,
      groups: config.normNumGroups,
      epsilon: config.normEps,
      timeScaleShift: config.resnetTimeScaleShift,
    };
    const transformer = (
      i: number,
      layers: number | number[],
      onlyCrossAttention: boolean,
    ): BlockConfig['transformer'] => ({
      heads: config.numAttentionHeads[i]!,
      layers,
      crossAttentionDim: config.crossAttentionDim[i]!,
      groups: config.normNumGroups,
      useLinearProjection: config.useLinearProjection,
      onlyCrossAttention,
      upcastAttention: config.upcastAttention,
      attention,
    });
    const last = channels.length - 1;

    for (const [i, type] of config.downBlockTypes.entries()) {
      const block = new DownBlock2D(w.at('down_blocks').at(i), {
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
      });
      this.downBlocks.push(block);
    }
    this.midBlock = config.midBlockType
      ? new MidBlock2D(w.at('mid_block'), {
          channels: channels[last]!,
          resnet: { ...resnet, outputScaleFactor: config.midBlockScaleFactor },
          // diffusers gives only_cross_attention to the way down and up alone
          transformer:
            config.midBlockType === 'UNetMidBlock2DCrossAttn'
              ? transformer(last, config.transformerLayersPerBlock[last]!, false)
              : null,
        })
      : null;
    for (const [i, type] of config.upBlockTypes.entries()) {
      const level = last - i;
      const block = new UpBlock2D(w.at('up_blocks').at(i), {
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
      });
      this.upBlocks.push(block);
    }
    this.convNormOut = new GroupNorm(w.at('conv_norm_out'), config.normNumGroups, first, config.normEps);
    this.convOut = new Conv2d(w.at('conv_out'), first, config.outChannels, config.convOutKernel, {
      padding: (config.convOutKernel - 1) >> 1,
    });
    const within = (path: string) => w.parameters.filter((parameter) => parameter.path.startsWith(`${path}.`));
    for (const [i, block] of this.downBlocks.entries()) {
      this.blockParameters.set(block, within(`down_blocks.${i}`));
    }
    if (this.midBlock) {
      this.blockParameters.set(this.midBlock, within('mid_block'));
    }
    for (const [i, block] of this.upBlocks.entries()) {
      this.blockParameters.set(block, within(`up_blocks.${i}`));
    }
    const ofBlocks = new Set([...this.blockParameters.values()].flat());
    this.outsideBlocks = w.parameters.filter((parameter) => !ofBlocks.has(parameter));
  }

  protected override get residentParameters(): readonly Parameter[] {
    return this.sequentialOffload ? this.outsideBlocks : this.parameters;
  }

  /** Runs a block, whose weights are read for it and freed after it with sequential offload. */
  private runBlock<B extends object, T>(block: B, f: (block: B) => T): T {
    return this.sequentialOffload && this.store
      ? this.store.using(this.blockParameters.get(block)!, () => f(block))
      : f(block);
  }

  /** Loads a UNet from a directory with config.json and diffusion_pytorch_model.safetensors. */
  static fromPretrained(dir: string, options: LoadModelOptions = {}): Promise<UNet2DConditionModel> {
    return loadModel(UNet2DConditionModel, dir, options);
  }

  /** Builds a UNet from a configuration alone. */
  static fromConfig(config: ConfigJson, options: FromConfigOptions = {}): UNet2DConditionModel {
    return modelFromConfig(UNet2DConditionModel, config, options);
  }

  /** Every transformer block, in the order of computation. */
  get transformerBlocks(): BasicTransformerBlock[] {
    const ofLayers = (blocks: (DownBlock2D | UpBlock2D)[]) =>
      blocks.flatMap((block) => block.layers.flatMap((layer) => layer.attention?.transformerBlocks ?? []));
    const mid = this.midBlock?.attention?.transformerBlocks ?? [];
    return [...ofLayers(this.downBlocks), ...mid, ...ofLayers(this.upBlocks)];
  }

  override get attentionLayers(): readonly CrossAttention[] {
    return this.transformerBlocks.flatMap(({ attn1, attn2 }) => [attn1, attn2]);
  }

  protected override get attentionPlaces(): readonly BasicTransformerBlock[] {
    return this.transformerBlocks;
  }

  /**
   * Training with less memory: resnets and transformer blocks keep nothing for the backward pass, which computes them
   * once more. The gradients are the same.
   */
  enableGradientCheckpointing(): void {
    this.setCheckpoint(true);
  }

  disableGradientCheckpointing(): void {
    this.setCheckpoint(false);
  }

  private setCheckpoint(on: boolean): void {
    for (const block of [...this.transformerBlocks, ...this.resnets]) {
      block.checkpoint = on;
    }
  }

  private get resnets(): ResnetBlock2D[] {
    const ofLayers = (blocks: (DownBlock2D | UpBlock2D)[]) =>
      blocks.flatMap((block) => block.layers.map((layer) => layer.resnet));
    const mid = [this.midBlock?.first, this.midBlock?.second].filter((resnet) => !!resnet);
    return [...ofLayers(this.downBlocks), ...mid, ...ofLayers(this.upBlocks)];
  }

  /**
   * Predicts the noise (or velocity, or sample) in `sample`.
   *
   * @param sample [B,H,W,in_channels] float32
   * @param timestep one for all, or a tensor [B]
   * @param encoderHiddenStates the prompt, [B, Nk, cross_attention_dim]
   * @returns [B,H,W,out_channels]
   * @throws InvalidArgumentError when the shapes do not fit the configuration
   */
  forward(
    sample: Tensor4D,
    timestep: number | Tensor1D,
    encoderHiddenStates: Tensor3D,
    inputs: UNetInputs = {},
  ): Tensor4D {
    this.checkInputs(sample, encoderHiddenStates);
    return tf.tidy(() => {
      const temb = toPhysicalType(this.timeAndClass(sample.shape[0], timestep, inputs), this.dtype);
      const mask = inputs.encoderAttentionMask;
      const blockInputs: BlockInputs = {
        temb: silu(temb),
        encoderHiddenStates:
          inputs.cache?.context(encoderHiddenStates, this.dtype) ?? toPhysicalType(encoderHiddenStates, this.dtype),
        encoderAttentionBias: mask ? tf.mul(tf.sub(1, tf.reshape(mask, [mask.shape[0], 1, 1, -1])), -10000) : undefined,
        cache: inputs.cache,
        originalSize: { height: sample.shape[1], width: sample.shape[2] },
      };
      const centered = this.parsed.centerInputSample ? (tf.sub(tf.mul(sample, 2), 1) as Tensor4D) : sample;
      let state = this.convIn.forward(toPhysicalType(centered, this.dtype));
      const skips = [state];
      for (const block of this.downBlocks) {
        skips.push(...this.runBlock(block, (b) => b.forward(state, blockInputs)));
        state = skips.at(-1)!;
      }
      state = this.midBlock ? this.runBlock(this.midBlock, (b) => b.forward(state, blockInputs)) : tf.clone(state);
      for (const block of this.upBlocks) {
        state = this.runBlock(block, (b) => b.forward(state, skips, blockInputs));
      }
      return toPhysicalType(this.convOut.forward(this.convNormOut.forward(state, 'silu')), 'float32');
    });
  }

  /** Time embedding [B, tembChannels], with class and size conditioning where the model has them. */
  private timeAndClass(batch: number, timestep: number | Tensor1D, inputs: UNetInputs): Tensor2D {
    const { parsed: config } = this;
    const times = typeof timestep === 'number' ? tf.fill<tf.Rank.R1>([batch], timestep) : timestep;
    const options = { flipSinToCos: config.flipSinToCos, downscaleFreqShift: config.freqShift };
    const embed = (t: Tensor1D, dim: number) => timestepEmbedding(t, { dim, ...options });
    const dim = config.blockOutChannels[0]!;
    let temb = this.timeEmbedding.forward(embed(times, dim), inputs.timestepCond);
    if (config.classEmbedType || this.classEmbedding) {
      const { classLabels } = inputs;
      if (!classLabels) {
        throw new InvalidArgumentError('[UNet2DConditionModel] this model needs classLabels, one per sample');
      }
      const labels = config.classEmbedType === 'timestep' ? embed(classLabels as Tensor1D, dim) : classLabels;
      const embedded = (this.classEmbedding ? this.classEmbedding.forward(labels as Tensor2D) : labels) as Tensor2D;
      temb = config.classEmbeddingsConcat ? tf.concat([temb, embedded], 1) : tf.add(temb, embedded);
    }
    if (this.addEmbedding) {
      const added = inputs.addedCond;
      if (!added) {
        throw new InvalidArgumentError('[UNet2DConditionModel] this model needs addedCond: {textEmbeds, timeIds}');
      }
      const ids = embed(tf.reshape(added.timeIds, [-1]), config.additionTimeEmbedDim!);
      const all = tf.concat([added.textEmbeds, tf.reshape(ids, [batch, -1])], 1) as Tensor2D;
      temb = tf.add(temb, this.addEmbedding.forward(all));
    }
    return temb;
  }

  private checkInputs(sample: Tensor4D, encoderHiddenStates: Tensor3D): void {
    const { inChannels, crossAttentionDim } = this.parsed;
    if (sample.rank !== 4 || sample.shape[3] !== inChannels) {
      throw new InvalidArgumentError(
        `[UNet2DConditionModel] sample must be [B,H,W,${inChannels}], got [${sample.shape}]`,
      );
    }
    if (
      encoderHiddenStates.rank !== 3 ||
      encoderHiddenStates.shape[2] !== crossAttentionDim[0] ||
      encoderHiddenStates.shape[0] !== sample.shape[0]
    ) {
      throw new InvalidArgumentError(
        `[UNet2DConditionModel] encoderHiddenStates must be [${sample.shape[0]}, tokens, ${crossAttentionDim[0]}], ` +
          `got [${encoderHiddenStates.shape}]`,
      );
    }
  }
}

function classEmbedding(
  w: Weights,
  config: UNetConfig,
  timeDim: number,
): Embedding | TimestepEmbedding | Linear | null {
  switch (config.classEmbedType) {
    case 'timestep':
      return new TimestepEmbedding(w, config.blockOutChannels[0]!, timeDim);
    case 'projection':
      return new TimestepEmbedding(w, config.projectionClassEmbeddingsInputDim!, timeDim);
    case 'simple_projection':
      return new Linear(w, config.projectionClassEmbeddingsInputDim!, timeDim);
    case 'identity':
      return null;
    case null:
      return config.numClassEmbeds === null ? null : new Embedding(w, config.numClassEmbeds, timeDim);
  }
}
