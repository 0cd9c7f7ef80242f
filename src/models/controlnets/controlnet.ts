import type { Tensor1D, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { CrossAttention } from '../../attention/index.js';
import { toPhysicalType } from '../../backends/precision.js';
import { Conv2d, Weights } from '../../nn/index.js';
import { invalid } from '../../utils/check.js';
import type { BasicTransformerBlock } from '../blocks/basic_transformer_block.js';
import {
  type Checkpointed,
  type ConfigJson,
  type FromConfigOptions,
  type LoadModelOptions,
  loadModel,
  Model,
  type ModelOptions,
  modelFromConfig,
} from '../model.js';
import type { ForwardPass } from '../offload.js';
import { loadModelFile, type SingleFileOptions } from '../single_file.js';
import type { UNetConditions } from '../unets/unet_conditioning.js';
import { type PromptInputs, UNetDownPath, type UNetState } from '../unets/unet_down_path.js';
import { planUNet } from '../unets/unet_plan.js';
import { ControlNetConditioningEmbedding } from './conditioning_embedding.js';
import { type ControlNetConfig, parseControlNetConfig } from './controlnet_config.js';

export interface ControlNetInputs extends UNetConditions, PromptInputs {
  /** Factor of everything that the ControlNet adds. Default 1. */
  conditioningScale?: number;
  /** Whether deep layers count more than shallow ones, 0.1 to 1, so that a picture without a prompt follows the control. */
  guessMode?: boolean;
  /** Whether the condition is what `embedCondition` made of the picture. */
  isEmbedded?: boolean;
}

/** What a ControlNet adds to a UNet: float32 tensors, which the caller owns. */
export type ControlNetOutput = {
  /** One for the input convolution, for every layer and for every downsampler, [B,h,w,C] each. */
  downBlockResSamples: Tensor4D[];
  /** For the middle block. */
  midBlockResSample: Tensor4D;
};

const WHERE = 'ControlNetModel';

/**
 * A copy of a UNet's way down, which reads a control picture (edges, depths, poses) and adds to the states of the UNet
 * (diffusers/models/controlnets/controlnet.py; Zhang et al. 2023).
 */
export class ControlNetModel extends Model {
  static readonly weightsName = 'diffusion_pytorch_model';

  readonly parsed: ControlNetConfig;
  private readonly downPath: UNetDownPath;
  private readonly embedding: ControlNetConditioningEmbedding;
  /** 1x1 convolutions behind every state of the way down. */
  private readonly downProjections: readonly Conv2d[];
  private readonly midProjection: Conv2d;

  constructor(json: ConfigJson, options: ModelOptions & { source?: string } = {}) {
    const w = Weights.root(options.dtype);
    super(json, w, options);
    const config = parseControlNetConfig(json, options.source ?? 'controlnet/config.json');
    this.parsed = config;
    this.downPath = new UNetDownPath(w, config, planUNet(config, this.attention), this.dtype, WHERE);
    this.embedding = new ControlNetConditioningEmbedding(w.at('controlnet_cond_embedding'), config);
    const projection = (place: Weights, channels: number) => new Conv2d(place, channels, channels, 1);
    const channels = config.blockOutChannels;
    const ofBlocks = this.downPath.downBlocks.flatMap((block, i) =>
      new Array<number>(block.numStates).fill(channels[i]!),
    );
    this.downProjections = [channels[0]!, ...ofBlocks].map((count, i) =>
      projection(w.at('controlnet_down_blocks').at(i), count),
    );
    this.midProjection = projection(w.at('controlnet_mid_block'), channels.at(-1)!);
  }

  /** Loads a ControlNet from a directory with config.json and diffusion_pytorch_model.safetensors. */
  static fromPretrained(dir: string, options: LoadModelOptions = {}): Promise<ControlNetModel> {
    return loadModel(ControlNetModel, dir, options);
  }

  /**
   * Loads a ControlNet from a single file, in the original layout or diffusers'.
   *
   * @param source a .safetensors file, or its address on the hub
   */
  static fromSingleFile(source: string, options: SingleFileOptions = {}): Promise<ControlNetModel> {
    return loadModelFile(ControlNetModel, 'controlnet', source, options);
  }

  /** Builds a ControlNet from a configuration alone. */
  static fromConfig(config: ConfigJson, options: FromConfigOptions = {}): ControlNetModel {
    return modelFromConfig(ControlNetModel, config, options);
  }

  override get attentionLayers(): readonly CrossAttention[] {
    return this.attentionPlaces.flatMap(({ attn1, attn2 }) => [attn1, attn2]);
  }

  protected override get attentionPlaces(): readonly BasicTransformerBlock[] {
    return this.downPath.transformerBlocks;
  }

  protected override get checkpointed(): readonly Checkpointed[] {
    return [...this.downPath.transformerBlocks, ...this.downPath.resnets];
  }

  protected override get blockPaths(): readonly string[] {
    return this.downPath.blockPaths;
  }

  /**
   * A control picture as the model sees it, the same at every step: `forward` takes it with `isEmbedded`.
   *
   * @param image [B,H,W,conditioning_channels] in 0..1
   * @returns [B,H/8,W/8,block_out_channels[0]], of the model's own type
   */
  embedCondition(image: Tensor4D): Tensor4D {
    const { conditioningChannels, controlnetConditioningChannelOrder: order } = this.parsed;
    if (image.rank !== 4 || image.shape[3] !== conditioningChannels) {
      throw invalid(WHERE, 'controlnetCond', `a tensor [B,H,W,${conditioningChannels}]`, image);
    }
    return tf.tidy(() => {
      const ordered = order === 'bgr' ? tf.reverse(image, 3) : image;
      return this.embedding.forward(toPhysicalType(ordered, this.dtype));
    });
  }

  /**
   * What the control picture adds to a UNet's prediction for `sample`.
   *
   * @param sample [B,h,w,in_channels] float32
   * @param timestep one for all, or a tensor [B]
   * @param encoderHiddenStates the prompt, [B, Nk, cross_attention_dim]
   * @param controlnetCond the control picture, [B,8h,8w,3] in 0..1, or what `embedCondition` made of it
   * @throws InvalidArgumentError when the shapes do not fit, and while blocks are offloaded
   */
  forward(
    sample: Tensor4D,
    timestep: number | Tensor1D,
    encoderHiddenStates: Tensor3D,
    controlnetCond: Tensor4D,
    inputs: ControlNetInputs = {},
  ): ControlNetOutput {
    return this.runPass(() => this.pass(sample, timestep, encoderHiddenStates, controlnetCond, inputs));
  }

  /** `forward`, or while blocks are offloaded a promise of the same. */
  predict(
    sample: Tensor4D,
    timestep: number | Tensor1D,
    encoderHiddenStates: Tensor3D,
    controlnetCond: Tensor4D,
    inputs: ControlNetInputs = {},
  ): ControlNetOutput | Promise<ControlNetOutput> {
    return this.runOrAwaitPass(() => this.pass(sample, timestep, encoderHiddenStates, controlnetCond, inputs));
  }

  private pass(
    sample: Tensor4D,
    timestep: number | Tensor1D,
    encoderHiddenStates: Tensor3D,
    controlnetCond: Tensor4D,
    inputs: ControlNetInputs,
  ): ForwardPass<UNetState, ControlNetOutput> {
    const { downPath } = this;
    downPath.checkInputs(sample, encoderHiddenStates);
    const blockInputs = downPath.blockInputs(sample, timestep, encoderHiddenStates, inputs);
    const { temb, encoderAttentionBias: bias, encoderHiddenStates: context } = blockInputs;
    const ownContext = !inputs.cache && context !== encoderHiddenStates;
    return {
      owned: [temb, ...(bias ? [bias] : []), ...(ownContext ? [context] : [])],
      start: this.start(sample, controlnetCond, inputs),
      steps: downPath.steps(blockInputs),
      finish: (state) => this.residuals(state, inputs),
    };
  }

  private start(sample: Tensor4D, condition: Tensor4D, { isEmbedded = false }: ControlNetInputs): UNetState {
    const { hidden } = this.downPath.start(sample);
    const embedded = isEmbedded ? condition : this.embedCondition(condition);
    if (`${embedded.shape}` !== `${hidden.shape}`) {
      const [batch, height, width] = hidden.shape;
      const factor = this.embedding.scaleFactor;
      const expected = `a control picture [${batch},${height * factor},${width * factor},${this.parsed.conditioningChannels}]`;
      throw invalid(WHERE, 'controlnetCond', expected, condition);
    }
    const sum = tf.add<Tensor4D>(hidden, embedded);
    return { hidden: sum, skips: [sum] };
  }

  private residuals({ hidden, skips }: UNetState, inputs: ControlNetInputs): ControlNetOutput {
    const states = [
      ...skips.map((skip, i) => this.downProjections[i]!.forward(skip)),
      this.midProjection.forward(hidden),
    ];
    const scales = this.scales(states.length, inputs);
    const residuals = states.map((state, i) => this.scaled(toPhysicalType(state, 'float32'), scales[i]!));
    return { downBlockResSamples: residuals.slice(0, -1), midBlockResSample: residuals.at(-1)! };
  }

  private scales(count: number, { conditioningScale = 1, guessMode = false }: ControlNetInputs): number[] {
    const grows = guessMode && !this.parsed.globalPoolConditions;
    const share = (i: number) => (grows ? 10 ** (i / (count - 1) - 1) : 1);
    return Array.from({ length: count }, (_, i) => conditioningScale * share(i));
  }

  private scaled(state: Tensor4D, scale: number): Tensor4D {
    const scaled = scale === 1 ? state : tf.mul<Tensor4D>(state, scale);
    return this.parsed.globalPoolConditions ? tf.mean(scaled, [1, 2], true) : scaled;
  }
}
