import { ConfigError } from '../../errors.js';
import {
  type Autoencoder,
  AutoencoderKL,
  AutoencoderTiny,
  CLIPTextModel,
  CLIPTextModelWithProjection,
  UNet2DConditionModel,
} from '../../models/index.js';
import type { SchedulerMixin } from '../../schedulers/index.js';
import type { Tokenizer, TransformersJsTokenizer } from '../../tokenizers/index.js';
import { type ComponentTable, component, schedulerComponent } from '../common/components.js';
import {
  checkInputChannels,
  type InputChannels,
  tokenizerComponent,
  unusedComponent,
} from '../stable_diffusion/stable_diffusion_components.js';

/** The parts of a Stable Diffusion XL pipeline, as in model_index.json. The refiner has the second text encoder alone. */
export interface StableDiffusionXLComponents {
  tokenizer?: Tokenizer | TransformersJsTokenizer | null;
  tokenizer2?: Tokenizer | TransformersJsTokenizer | null;
  textEncoder?: CLIPTextModel | null;
  textEncoder2?: CLIPTextModelWithProjection | null;
  unet: UNet2DConditionModel;
  vae: Autoencoder;
  scheduler: SchedulerMixin;
  /** Parts of Python's pipelines that nothing here computes with; a checkpoint may have them. */
  featureExtractor?: null;
  imageEncoder?: null;
}

const text = { library: 'transformers', optional: true } as const;

export const STABLE_DIFFUSION_XL_COMPONENTS: ComponentTable<StableDiffusionXLComponents> = {
  scheduler: schedulerComponent,
  tokenizer: tokenizerComponent('tokenizer', { optional: true }),
  tokenizer2: tokenizerComponent('tokenizer_2', { optional: true }),
  textEncoder: component('text_encoder', { CLIPTextModel }, text),
  textEncoder2: component('text_encoder_2', { CLIPTextModelWithProjection }, text),
  unet: component('unet', { UNet2DConditionModel }),
  vae: component<Autoencoder>('vae', { AutoencoderKL, AutoencoderTiny }),
  featureExtractor: unusedComponent('feature_extractor'),
  imageEncoder: unusedComponent('image_encoder'),
};

/** @throws ConfigError for parts that cannot work together */
export function checkFit(components: StableDiffusionXLComponents, channels?: InputChannels): void {
  const { tokenizer, tokenizer2, textEncoder, textEncoder2, unet, vae } = components;
  if (unet.parsed.additionEmbedType !== 'text_time') {
    throw new ConfigError("this task needs a UNet with addition_embed_type 'text_time': this is no checkpoint of SDXL");
  }
  if (Boolean(tokenizer) !== Boolean(textEncoder) || Boolean(tokenizer2) !== Boolean(textEncoder2)) {
    throw new ConfigError('each text encoder needs its tokenizer, and each tokenizer its text encoder');
  }
  const sizes = [textEncoder, textEncoder2].flatMap((encoder) => encoder?.parsed.hiddenSize ?? []);
  const hiddenSize = sizes.reduce((a, b) => a + b, 0);
  const crossAttentionDim = unet.parsed.crossAttentionDim[0];
  if (textEncoder2 && hiddenSize !== crossAttentionDim) {
    throw new ConfigError(
      `the text encoders give ${sizes.join(' + ')} channels, but the UNet's cross_attention_dim is ` +
        `${crossAttentionDim}; they come from different checkpoints`,
    );
  }
  checkInputChannels(unet, vae, channels);
}
