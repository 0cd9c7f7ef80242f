import type { Tensor3D } from '@tensorflow/tfjs-core';
import type { CLIPTextModel } from '../../models/index.js';
import { asTokenizer, type Tokenizer } from '../../tokenizers/index.js';
import { is } from '../../utils/check.js';
import type { Prompt } from '../common/callable.js';
import type { ComponentTable } from '../common/components.js';
import { Conditioning } from '../common/conditioning.js';
import { DENOISING_CHECKS, type DenoisingOptions, DenoisingPipeline, type Plan } from '../common/denoising_pipeline.js';
import { type Checks, COUNT, checkOptions, type GenerationOptions, withoutNulls } from '../common/options.js';
import {
  checkPrompts,
  type EncodePromptInputs,
  encodePrompt,
  PROMPT_CHECKS,
  type PromptOptions,
  promptCount,
} from './encode_prompt.js';
import { fixOutdatedConfig } from './outdated_configs.js';
import {
  checkFit,
  type InputChannels,
  STABLE_DIFFUSION_COMPONENTS,
  type StableDiffusionComponents,
} from './stable_diffusion_components.js';

/** Options that the calls of all pipelines of Stable Diffusion 1.x and 2.x have. */
export interface StableDiffusionBaseOptions extends DenoisingOptions, PromptOptions {
  negativePrompt?: PromptOptions['negativePrompt'];
}

export const STABLE_DIFFUSION_CHECKS = { ...DENOISING_CHECKS, ...PROMPT_CHECKS } as const;

/** Options of `encodePrompt`. */
export interface EncodePromptOptions
  extends Pick<PromptOptions, 'negativePrompt' | 'clipSkip' | 'promptSyntax'>,
    Pick<GenerationOptions, 'numImagesPerPrompt'> {
  /** Whether the negative prompt is encoded, too. Default true. */
  doClassifierFreeGuidance?: boolean;
}

export const ENCODE_PROMPT_CHECKS: Checks<EncodePromptOptions> = {
  negativePrompt: PROMPT_CHECKS.negativePrompt,
  clipSkip: PROMPT_CHECKS.clipSkip,
  promptSyntax: PROMPT_CHECKS.promptSyntax,
  numImagesPerPrompt: COUNT,
  doClassifierFreeGuidance: [is.boolean, 'true or false'],
};

/**
 * What the pipelines of Stable Diffusion 1.x and 2.x share (Rombach et al. 2022): text, guidance, loop, decoder. A
 * pipeline says where its latents begin. There is no safety checker.
 */
export abstract class StableDiffusionBase<
  O extends StableDiffusionBaseOptions,
  C extends StableDiffusionComponents = StableDiffusionComponents,
> extends DenoisingPipeline<C, O> {
  static readonly componentTable: ComponentTable<StableDiffusionComponents> = STABLE_DIFFUSION_COMPONENTS;
  private readonly ownTokenizer: Tokenizer;

  /**
   * @param Pipeline the class that saving and messages name, and its table of components
   * @throws InvalidArgumentError for components of other classes, ConfigError for such that cannot work together
   */
  constructor(
    components: C,
    Pipeline: { className: string; componentTable: ComponentTable<C>; inputChannels?: InputChannels },
  ) {
    super(components, Pipeline.componentTable, Pipeline.className);
    this.ownTokenizer = asTokenizer(components.tokenizer);
    checkFit(components, Pipeline.inputChannels);
    fixOutdatedConfig(components.scheduler);
  }

  get tokenizer(): Tokenizer {
    return this.ownTokenizer;
  }

  get textEncoder(): CLIPTextModel {
    return this.components.textEncoder;
  }

  /**
   * Text embeddings of prompts, for `promptEmbeds` and `negativePromptEmbeds` of calls.
   *
   * @param prompt one or several texts
   * @returns [B, tokens, D] each, which the caller owns; B counts `numImagesPerPrompt` pictures of each prompt
   * @throws InvalidArgumentError for options that cannot be used
   */
  async encodePrompt(
    prompt: Prompt,
    options: EncodePromptOptions = {},
  ): Promise<{ promptEmbeds: Tensor3D; negativePromptEmbeds: Tensor3D | undefined }> {
    const where = `${this.className}.encodePrompt`;
    const given = withoutNulls(where, options);
    checkOptions(where, options ?? {}, ENCODE_PROMPT_CHECKS);
    const { numImagesPerPrompt = 1, doClassifierFreeGuidance: guidance = true, ...texts } = given;
    const inputs = { ...texts, prompt, numImagesPerPrompt, guidance };
    checkPrompts(this.className, inputs);
    const { conditional, unconditional } = await this.textEncoder.withWeights(() =>
      encodePrompt(this.className, this.tokenizer, this.textEncoder, inputs),
    );
    return {
      promptEmbeds: conditional!.encoderHiddenStates,
      negativePromptEmbeds: unconditional?.encoderHiddenStates,
    };
  }

  protected countPrompts(prompt: Prompt, options: O): number {
    const inputs = this.promptInputs(prompt, options, false);
    checkPrompts(this.className, inputs);
    return promptCount(inputs);
  }

  protected condition(prompt: Prompt, plan: Plan, options: O): Promise<Conditioning> {
    const inputs = this.promptInputs(prompt, options, plan.guidance);
    return this.textEncoder.withWeights(
      () => new Conditioning(encodePrompt(this.className, this.tokenizer, this.textEncoder, inputs)),
    );
  }

  private promptInputs(prompt: Prompt, options: O, guidance: boolean): EncodePromptInputs {
    const { numImagesPerPrompt = 1 } = options;
    return { ...options, prompt, numImagesPerPrompt, guidance };
  }
}
