import type { Tensor1D, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import type { CrossAttention } from '../../attention/index.js';
import { toPhysicalType } from '../../backends/precision.js';
import { Conv2d, GroupNorm, Weights } from '../../nn/index.js';
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
import type { ForwardPass, ForwardStep } from '../offload.js';
import { loadModelFile, type SingleFileOptions } from '../single_file.js';
import { type BlockInputs, type DownBlock2D, type MidBlock2D, UpBlock2D } from './unet_2d_blocks.js';
import { parseUNetConfig, type UNetConfig } from './unet_2d_condition_config.js';
import type { UNetConditions } from './unet_conditioning.js';
import { type DownPathResiduals, type PromptInputs, UNetDownPath, type UNetState } from './unet_down_path.js';
import { planUNet } from './unet_plan.js';

export interface UNetInputs extends UNetConditions, PromptInputs, DownPathResiduals {}

const WHERE = 'UNet2DConditionModel';

/**
 * The denoising UNet of Stable Diffusion, conditioned on text (diffusers/models/unets/unet_2d_condition.py; Ronneberger
 * et al. 2015, Rombach et al. 2022).
 */
export class UNet2DConditionModel extends Model {
  static readonly weightsName = 'diffusion_pytorch_model';

  readonly parsed: UNetConfig;
  private readonly downPath: UNetDownPath;
  readonly upBlocks: readonly UpBlock2D[];
  private readonly convNormOut: GroupNorm;
  private readonly convOut: Conv2d;

  constructor(json: ConfigJson, options: ModelOptions & { source?: string } = {}) {
    const w = Weights.root(options.dtype);
    super(json, w, options);
    const config = parseUNetConfig(json, options.source ?? 'unet/config.json');
    this.parsed = config;
    const plan = planUNet(config, this.attention);
    this.downPath = new UNetDownPath(w, config, plan, this.dtype, WHERE);
    this.upBlocks = plan.up.map((block, i) => new UpBlock2D(w.at('up_blocks').at(i), block));
    const [first, kernel] = [config.blockOutChannels[0]!, config.convOutKernel];
    this.convNormOut = new GroupNorm(w.at('conv_norm_out'), config.normNumGroups, first, config.normEps);
    this.convOut = new Conv2d(w.at('conv_out'), first, config.outChannels, kernel, { padding: (kernel - 1) >> 1 });
  }

  /** Loads a UNet from a directory with config.json and diffusion_pytorch_model.safetensors. */
  static fromPretrained(dir: string, options: LoadModelOptions = {}): Promise<UNet2DConditionModel> {
    return loadModel(UNet2DConditionModel, dir, options);
  }

  /**
   * Loads a UNet from a single file in the original layout, of a whole checkpoint.
   *
   * @param source a .safetensors file, or its address on the hub
   */
  static fromSingleFile(source: string, options: SingleFileOptions = {}): Promise<UNet2DConditionModel> {
    return loadModelFile(UNet2DConditionModel, 'unet', source, options);
  }

  /** Builds a UNet from a configuration alone. */
  static fromConfig(config: ConfigJson, options: FromConfigOptions = {}): UNet2DConditionModel {
    return modelFromConfig(UNet2DConditionModel, config, options);
  }

  get downBlocks(): readonly DownBlock2D[] {
    return this.downPath.downBlocks;
  }

  get midBlock(): MidBlock2D | null {
    return this.downPath.midBlock;
  }

  /** Every transformer block, in the order of computation. */
  get transformerBlocks(): BasicTransformerBlock[] {
    const up = this.upBlocks.flatMap((block) => block.layers);
    return [...this.downPath.transformerBlocks, ...up.flatMap(({ attention }) => attention?.transformerBlocks ?? [])];
  }

  override get attentionLayers(): readonly CrossAttention[] {
    return this.transformerBlocks.flatMap(({ attn1, attn2 }) => [attn1, attn2]);
  }

  protected override get attentionPlaces(): readonly BasicTransformerBlock[] {
    return this.transformerBlocks;
  }

  /** Resnets and transformer blocks. */
  protected override get checkpointed(): readonly Checkpointed[] {
    const up = this.upBlocks.flatMap((block) => block.layers.map(({ resnet }) => resnet));
    return [...this.transformerBlocks, ...this.downPath.resnets, ...up];
  }

  protected override get blockPaths(): readonly string[] {
    return [...this.downPath.blockPaths, ...this.upBlocks.map((_, i) => `up_blocks.${i}`)];
  }

  /**
   * Predicts the noise (or velocity, or sample) in `sample`.
   *
   * @param sample [B,H,W,in_channels] float32
   * @param timestep one for all, or a tensor [B]
   * @param encoderHiddenStates the prompt, [B, Nk, cross_attention_dim]
   * @returns [B,H,W,out_channels]
   * @throws InvalidArgumentError when the shapes do not fit the configuration, and while blocks are offloaded
   */
  forward(
    sample: Tensor4D,
    timestep: number | Tensor1D,
    encoderHiddenStates: Tensor3D,
    inputs: UNetInputs = {},
  ): Tensor4D {
    return this.runPass(() => this.pass(sample, timestep, encoderHiddenStates, inputs));
  }

  /** `forward`, or while blocks are offloaded a promise of the same, which reads each block's weights when its turn comes. */
  predict(
    sample: Tensor4D,
    timestep: number | Tensor1D,
    encoderHiddenStates: Tensor3D,
    inputs: UNetInputs = {},
  ): Tensor4D | Promise<Tensor4D> {
    return this.runOrAwaitPass(() => this.pass(sample, timestep, encoderHiddenStates, inputs));
  }

  private pass(
    sample: Tensor4D,
    timestep: number | Tensor1D,
    encoderHiddenStates: Tensor3D,
    inputs: UNetInputs,
  ): ForwardPass<UNetState, Tensor4D> {
    const { downPath } = this;
    downPath.checkInputs(sample, encoderHiddenStates);
    const blockInputs = downPath.blockInputs(sample, timestep, encoderHiddenStates, inputs);
    const { temb, encoderAttentionBias: bias, encoderHiddenStates: context } = blockInputs;
    const ownContext = !inputs.cache && context !== encoderHiddenStates;
    return {
      owned: [temb, ...(bias ? [bias] : []), ...(ownContext ? [context] : [])],
      start: downPath.start(sample),
      steps: [...downPath.steps(blockInputs, inputs), ...this.upSteps(blockInputs)],
      finish: ({ hidden }) => toPhysicalType(this.convOut.forward(this.convNormOut.forward(hidden, 'silu')), 'float32'),
    };
  }

  private upSteps(inputs: BlockInputs): ForwardStep<UNetState>[] {
    return this.upBlocks.map((block, i) => ({
      block: `up_blocks.${i}`,
      run: ({ hidden, skips }) => {
        const left = [...skips];
        return { hidden: block.forward(hidden, left, inputs), skips: left };
      },
    }));
  }
}
