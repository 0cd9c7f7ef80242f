import type { Tensor2D, Tensor3D } from '@tensorflow/tfjs-core';
import type { CLIPTextModel, CLIPTextModelWithProjection } from '../../models/index.js';
import { asTokenizer } from '../../tokenizers/index.js';
import type { Prompt } from '../common/callable.js';
import type { PipelineConfig } from '../common/components.js';
import { type Branch, Conditioning, type ConditioningTensors } from '../common/conditioning.js';
import {
  DENOISING_CHECKS,
  type DenoisingOptions,
  DenoisingPipeline,
  type Plan,
  type Start,
} from '../common/denoising_pipeline.js';
import { type Checks, checkOptions, type GenerationOptions, SHARE, withoutNulls } from '../common/options.js';
import { endAt } from '../common/schedule.js';
import type { PromptEmbeddings } from '../stable_diffusion/encode_prompt.js';
import { ENCODE_PROMPT_CHECKS } from '../stable_diffusion/stable_diffusion_base.js';
import type { InputChannels } from '../stable_diffusion/stable_diffusion_components.js';
import {
  checkXLPrompts,
  encodeXLPrompt,
  type TextEncoder,
  XL_PROMPT_CHECKS,
  type XLEncodePromptInputs,
  type XLPromptOptions,
} from './encode_prompt.js';
import {
  checkFit,
  STABLE_DIFFUSION_XL_COMPONENTS,
  type StableDiffusionXLComponents,
} from './stable_diffusion_xl_components.js';
import { type SizePair, TIME_ID_CHECKS, type TimeIdOptions, timeIds } from './time_ids.js';

/** Options that the calls of all pipelines of Stable Diffusion XL have. */
export interface StableDiffusionXLBaseOptions extends DenoisingOptions, XLPromptOptions, TimeIdOptions {
  negativePrompt?: XLPromptOptions['negativePrompt'];
  /** Share of the schedule, 0 to 1, at which the denoising ends and a refiner takes over (`denoisingStart`). */
  denoisingEnd?: number;
}

export const STABLE_DIFFUSION_XL_CHECKS = {
  ...DENOISING_CHECKS,
  ...XL_PROMPT_CHECKS,
  ...TIME_ID_CHECKS,
  denoisingEnd: SHARE,
} as const;

/** Options of `encodePrompt`. */
export interface XLEncodePromptOptions
  extends Pick<XLPromptOptions, 'negativePrompt' | 'prompt2' | 'negativePrompt2' | 'clipSkip' | 'promptSyntax'>,
    Pick<GenerationOptions, 'numImagesPerPrompt'> {
  /** Whether the negative prompt is encoded, too. Default true. */
  doClassifierFreeGuidance?: boolean;
}

const XL_ENCODE_PROMPT_CHECKS: Checks<XLEncodePromptOptions> = {
  ...ENCODE_PROMPT_CHECKS,
  prompt2: XL_PROMPT_CHECKS.prompt2,
  negativePrompt2: XL_PROMPT_CHECKS.negativePrompt2,
};

/** What `encodePrompt` gives; the caller owns the tensors. */
export interface XLPromptEmbeds {
  /** [B, tokens, D]. */
  promptEmbeds: Tensor3D;
  negativePromptEmbeds: Tensor3D | undefined;
  /** [B, D]. */
  pooledPromptEmbeds: Tensor2D;
  negativePooledPromptEmbeds: Tensor2D | undefined;
}

/** A class of pipelines of Stable Diffusion XL. */
export interface XLPipelineClass {
  className: string;
  inputChannels?: InputChannels;
}

/** What the pipelines of Stable Diffusion XL share (Podell et al. 2023): two text encoders, sizes, ensembles. */
export abstract class StableDiffusionXLBase<O extends StableDiffusionXLBaseOptions> extends DenoisingPipeline<
  StableDiffusionXLComponents,
  O
> {
  static readonly componentTable = STABLE_DIFFUSION_XL_COMPONENTS;
  override config: PipelineConfig = { force_zeros_for_empty_prompt: true };
  /** Text encoders with their tokenizers; the last one's pooled state is used. */
  private readonly textEncoders: readonly TextEncoder[];

  /**
   * @param Pipeline the class that saving and messages name
   * @throws InvalidArgumentError for components of other classes, ConfigError for such that cannot work together
   */
  constructor(components: StableDiffusionXLComponents, Pipeline: XLPipelineClass) {
    super(components, STABLE_DIFFUSION_XL_COMPONENTS, Pipeline.className);
    checkFit(components, Pipeline.inputChannels);
    const { tokenizer, textEncoder, tokenizer2, textEncoder2, vae } = components;
    const first = textEncoder ? [{ tokenizer: asTokenizer(tokenizer!), model: textEncoder }] : [];
    const second = textEncoder2 ? [{ tokenizer: asTokenizer(tokenizer2!), model: textEncoder2 }] : [];
    this.textEncoders = [...first, ...second];
    vae.upcast = vae.parsed.forceUpcast && vae.dtype === 'float16';
  }

  get textEncoder(): CLIPTextModel | null {
    return this.components.textEncoder ?? null;
  }

  get textEncoder2(): CLIPTextModelWithProjection | null {
    return this.components.textEncoder2 ?? null;
  }

  /** Numbers of sizes and scores that a branch is told. */
  protected abstract timeIds(branch: Branch, size: SizePair, options: O): number[];

  /**
   * Text embeddings of prompts, for the options of calls of the same names.
   *
   * @param prompt one or several texts
   * @returns B counts `numImagesPerPrompt` pictures of each prompt
   * @throws InvalidArgumentError for options that cannot be used
   */
  async encodePrompt(prompt: Prompt, options: XLEncodePromptOptions = {}): Promise<XLPromptEmbeds> {
    const where = `${this.className}.encodePrompt`;
    const given = withoutNulls(where, options);
    checkOptions(where, options ?? {}, XL_ENCODE_PROMPT_CHECKS);
    const { doClassifierFreeGuidance: guidance = true, ...texts } = given;
    const { conditional, unconditional } = await this.encode(this.promptInputs(prompt, texts, guidance));
    return {
      promptEmbeds: conditional!.encoderHiddenStates,
      negativePromptEmbeds: unconditional?.encoderHiddenStates,
      pooledPromptEmbeds: conditional!.pooled!,
      negativePooledPromptEmbeds: unconditional?.pooled,
    };
  }

  protected countPrompts(prompt: Prompt, options: O): number {
    return checkXLPrompts(this.className, this.promptInputs(prompt, options, false), this.textEncoders.length);
  }

  protected async condition(prompt: Prompt, plan: Plan, options: O): Promise<Conditioning> {
    return new Conditioning(await this.encode(this.promptInputs(prompt, options, plan.guidance)));
  }

  /** All text encoders are in memory together; while they are offloaded they come and go together. */
  private encode(inputs: XLEncodePromptInputs): Promise<PromptEmbeddings> {
    checkXLPrompts(this.className, inputs, this.textEncoders.length);
    const encode = async () => encodeXLPrompt(this.className, this.textEncoders, inputs);
    return this.textEncoders.reduce<typeof encode>(
      (inner, { model }) =>
        () =>
          model.withWeights(inner),
      encode,
    )();
  }

  private promptInputs(
    prompt: Prompt,
    options: XLPromptOptions & { numImagesPerPrompt?: number },
    guidance: boolean,
  ): XLEncodePromptInputs {
    const { numImagesPerPrompt = 1 } = options;
    const forceZeros = this.config.force_zeros_for_empty_prompt!;
    return { ...options, prompt, numImagesPerPrompt, guidance, forceZeros };
  }

  protected override conditionsOf(
    branch: Branch,
    plan: Plan,
    start: Start,
    options: O,
    text: ConditioningTensors,
  ): Partial<ConditioningTensors> {
    const { scaleFactor } = this.vae;
    const [, rows, columns] = start.latents.shape;
    const ids = this.timeIds(branch, [rows * scaleFactor, columns * scaleFactor], options);
    return {
      ...super.conditionsOf(branch, plan, start, options, text),
      timeIds: timeIds(this.unet, ids, text.pooled!.shape[1], plan.pictures),
    };
  }

  /** One after the last step that is taken. */
  protected endOf(begin: number, { denoisingEnd }: O): number | undefined {
    const inside = denoisingEnd !== undefined && denoisingEnd > 0 && denoisingEnd < 1;
    return inside ? endAt(this.className, this.scheduler, begin, denoisingEnd) : undefined;
  }
}
