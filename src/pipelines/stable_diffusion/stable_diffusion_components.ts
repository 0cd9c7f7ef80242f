import { ConfigError } from '../../errors.js';
import {
  type Autoencoder,
  AutoencoderKL,
  AutoencoderTiny,
  CLIPTextModel,
  UNet2DConditionModel,
} from '../../models/index.js';
import type { SchedulerMixin } from '../../schedulers/index.js';
import { CLIPTokenizer, type Tokenizer, type TransformersJsTokenizer } from '../../tokenizers/index.js';
import { is } from '../../utils/check.js';
import { type ComponentTable, component, schedulerComponent } from '../common/components.js';
import type { Check } from '../common/options.js';

/** The parts of a Stable Diffusion 1.x or 2.x pipeline, as in model_index.json. */
export interface StableDiffusionComponents {
  /** A tokenizer of transformers.js is taken, too. */
  tokenizer: Tokenizer | TransformersJsTokenizer;
  textEncoder: CLIPTextModel;
  unet: UNet2DConditionModel;
  vae: Autoencoder;
  scheduler: SchedulerMixin;
  /** Parts of Python's pipelines that nothing here computes with; a checkpoint may have them. */
  safetyChecker?: null;
  featureExtractor?: null;
  imageEncoder?: null;
}

/** `asTokenizer` says which objects are tokenizers. */
const TOKENIZER: Check = [(value) => is.object(value) || is.function(value), 'a tokenizer'];

/** The row of a CLIP tokenizer; those of transformers.js are taken, too. */
export const tokenizerComponent = (folder: string, { optional = false } = {}) =>
  component<Tokenizer | TransformersJsTokenizer>(
    folder,
    { CLIPTokenizer, CLIPTokenizerFast: CLIPTokenizer },
    { library: 'transformers', optional, check: TOKENIZER },
  );

/** The row of a part that nothing computes with. */
export const unusedComponent = (folder: string) =>
  component<never>(folder, {}, { library: 'transformers', optional: true });

export const STABLE_DIFFUSION_COMPONENTS: ComponentTable<StableDiffusionComponents> = {
  scheduler: schedulerComponent,
  tokenizer: tokenizerComponent('tokenizer'),
  textEncoder: component('text_encoder', { CLIPTextModel }, { library: 'transformers' }),
  unet: component('unet', { UNet2DConditionModel }),
  vae: component<Autoencoder>('vae', { AutoencoderKL, AutoencoderTiny }),
  safetyChecker: unusedComponent('safety_checker'),
  featureExtractor: unusedComponent('feature_extractor'),
  imageEncoder: unusedComponent('image_encoder'),
};

/** How many input channels a pipeline's UNet can have, of the latent channels; those beside the latents are conditions. */
export type InputChannels = (latentChannels: number) => readonly number[];

/** The latents alone. */
const latentsAlone: InputChannels = (latents) => [latents];
/** The latents alone, or a mask and the masked picture's latents beside them. */
export const withMask: InputChannels = (latents) => [latents, 2 * latents + 1];

/** @throws ConfigError for parts that cannot work together */
export function checkFit({ textEncoder, unet, vae }: StableDiffusionComponents, channels?: InputChannels): void {
  const { hiddenSize } = textEncoder.parsed;
  const crossAttentionDim = unet.parsed.crossAttentionDim[0];
  if (hiddenSize !== crossAttentionDim) {
    throw new ConfigError(
      `the text encoder gives ${hiddenSize} channels, but the UNet's cross_attention_dim is ${crossAttentionDim}; ` +
        'they come from different checkpoints',
    );
  }
  checkInputChannels(unet, vae, channels);
}

/** @throws ConfigError for a UNet that draws in another way */
export function checkInputChannels(
  unet: UNet2DConditionModel,
  vae: Autoencoder,
  channels: InputChannels = latentsAlone,
): void {
  const { inChannels } = unet.parsed;
  const expected = channels(vae.parsed.latentChannels);
  if (!expected.includes(inChannels)) {
    throw new ConfigError(
      `this task needs a UNet with ${expected.join(' or ')} input channels (the VAE has ` +
        `${vae.parsed.latentChannels} latent channels), got ${inChannels}: this is a checkpoint for another task`,
    );
  }
}
