import type { SingleFileKind } from './kinds.js';

type Json = Readonly<Record<string, unknown>>;

// configurations of the checkpoints that the kinds are named after, as their repositories on the hub have them

const CROSS = 'CrossAttnDownBlock2D';
const CROSS_UP = 'CrossAttnUpBlock2D';

const UNET: Json = {
  _class_name: 'UNet2DConditionModel',
  act_fn: 'silu',
  block_out_channels: [320, 640, 1280, 1280],
  cross_attention_dim: 768,
  attention_head_dim: 8,
  down_block_types: [CROSS, CROSS, CROSS, 'DownBlock2D'],
  up_block_types: ['UpBlock2D', CROSS_UP, CROSS_UP, CROSS_UP],
  flip_sin_to_cos: true,
  freq_shift: 0,
  in_channels: 4,
  out_channels: 4,
  layers_per_block: 2,
  norm_eps: 1e-5,
  norm_num_groups: 32,
  sample_size: 64,
};
const UNET_2: Json = {
  ...UNET,
  attention_head_dim: [5, 10, 20, 20],
  cross_attention_dim: 1024,
  use_linear_projection: true,
};
const UNET_XL: Json = {
  ...UNET,
  addition_embed_type: 'text_time',
  addition_time_embed_dim: 256,
  attention_head_dim: [5, 10, 20],
  block_out_channels: [320, 640, 1280],
  cross_attention_dim: 2048,
  down_block_types: ['DownBlock2D', CROSS, CROSS],
  up_block_types: [CROSS_UP, CROSS_UP, 'UpBlock2D'],
  projection_class_embeddings_input_dim: 2816,
  sample_size: 128,
  transformer_layers_per_block: [1, 2, 10],
  use_linear_projection: true,
};
const UNET_REFINER: Json = {
  ...UNET_XL,
  attention_head_dim: [6, 12, 24, 24],
  block_out_channels: [384, 768, 1536, 1536],
  cross_attention_dim: 1280,
  down_block_types: ['DownBlock2D', CROSS, CROSS, 'DownBlock2D'],
  up_block_types: ['UpBlock2D', CROSS_UP, CROSS_UP, 'UpBlock2D'],
  projection_class_embeddings_input_dim: 2560,
  transformer_layers_per_block: 4,
};

const VAE: Json = {
  _class_name: 'AutoencoderKL',
  act_fn: 'silu',
  block_out_channels: [128, 256, 512, 512],
  down_block_types: new Array(4).fill('DownEncoderBlock2D'),
  up_block_types: new Array(4).fill('UpDecoderBlock2D'),
  in_channels: 3,
  out_channels: 3,
  latent_channels: 4,
  layers_per_block: 2,
  norm_num_groups: 32,
  sample_size: 512,
  scaling_factor: 0.18215,
};
const VAE_XL: Json = { ...VAE, sample_size: 1024, scaling_factor: 0.13025, force_upcast: true };

const TEXT: Json = {
  architectures: ['CLIPTextModel'],
  model_type: 'clip_text_model',
  hidden_act: 'quick_gelu',
  hidden_size: 768,
  intermediate_size: 3072,
  layer_norm_eps: 1e-5,
  max_position_embeddings: 77,
  num_attention_heads: 12,
  num_hidden_layers: 12,
  projection_dim: 768,
  vocab_size: 49408,
  bos_token_id: 0,
  eos_token_id: 2,
  pad_token_id: 1,
};
const TEXT_2: Json = {
  ...TEXT,
  hidden_act: 'gelu',
  hidden_size: 1024,
  intermediate_size: 4096,
  num_attention_heads: 16,
  num_hidden_layers: 23,
  projection_dim: 512,
};
const TEXT_BIG: Json = {
  ...TEXT_2,
  architectures: ['CLIPTextModelWithProjection'],
  hidden_size: 1280,
  intermediate_size: 5120,
  num_attention_heads: 20,
  num_hidden_layers: 32,
  projection_dim: 1280,
};

const BETAS: Json = {
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: 'scaled_linear',
  num_train_timesteps: 1000,
  steps_offset: 1,
};
const PNDM: Json = { ...BETAS, _class_name: 'PNDMScheduler', set_alpha_to_one: false, skip_prk_steps: true };
const DDIM_V: Json = {
  ...BETAS,
  _class_name: 'DDIMScheduler',
  clip_sample: false,
  prediction_type: 'v_prediction',
  set_alpha_to_one: false,
};
const EULER_ANCESTRAL: Json = { ...BETAS, _class_name: 'EulerAncestralDiscreteScheduler' };
const EULER_XL: Json = { ...BETAS, _class_name: 'EulerDiscreteScheduler', timestep_spacing: 'leading' };

/** A ControlNet is made of a UNet's first half. */
function controlNet(unet: Json): Json {
  const { up_block_types: _, sample_size: __, out_channels: ___, ...half } = unet;
  return {
    ...half,
    _class_name: 'ControlNetModel',
    conditioning_embedding_out_channels: [16, 32, 96, 256],
    controlnet_conditioning_channel_order: 'rgb',
  };
}

/** A kind's model_index.json and the configurations of its components, by folder. */
export interface KindConfigs {
  index: Json;
  components: Readonly<Record<string, Json>>;
}

const entry = (className: string): [string, string] => [
  className.startsWith('CLIP') ? 'transformers' : 'diffusers',
  className,
];

function pipeline(className: string, unet: Json, scheduler: Json, text: Json): KindConfigs {
  return {
    index: {
      _class_name: className,
      scheduler: entry(String(scheduler._class_name)),
      text_encoder: entry('CLIPTextModel'),
      tokenizer: entry('CLIPTokenizer'),
      unet: entry('UNet2DConditionModel'),
      vae: entry('AutoencoderKL'),
    },
    components: { scheduler, text_encoder: text, unet, vae: VAE },
  };
}

/** Stable Diffusion XL; the refiner has the second text encoder only. */
function xlPipeline(className: string, unet: Json, isRefiner = false): KindConfigs {
  const first = { text_encoder: entry('CLIPTextModel'), tokenizer: entry('CLIPTokenizer') };
  const none = { text_encoder: [null, null], tokenizer: [null, null] };
  return {
    index: {
      _class_name: className,
      force_zeros_for_empty_prompt: !isRefiner,
      ...(isRefiner ? { requires_aesthetics_score: true, ...none } : first),
      scheduler: entry('EulerDiscreteScheduler'),
      text_encoder_2: entry('CLIPTextModelWithProjection'),
      tokenizer_2: entry('CLIPTokenizer'),
      unet: entry('UNet2DConditionModel'),
      vae: entry('AutoencoderKL'),
    },
    components: {
      scheduler: EULER_XL,
      ...(isRefiner ? {} : { text_encoder: TEXT }),
      ...{ text_encoder_2: TEXT_BIG, unet, vae: VAE_XL },
    },
  };
}

const part = (folder: string, config: Json): KindConfigs => ({ index: {}, components: { [folder]: config } });
const INPAINT = { in_channels: 9 };

export const CONFIGS: Readonly<Record<SingleFileKind, KindConfigs>> = {
  v1: pipeline('StableDiffusionPipeline', UNET, PNDM, TEXT),
  'v1-inpainting': pipeline('StableDiffusionInpaintPipeline', { ...UNET, ...INPAINT }, PNDM, TEXT),
  'v1-instruct-pix2pix': pipeline(
    'StableDiffusionInstructPix2PixPipeline',
    { ...UNET, in_channels: 8 },
    EULER_ANCESTRAL,
    TEXT,
  ),
  v2: pipeline('StableDiffusionPipeline', { ...UNET_2, sample_size: 96, upcast_attention: true }, DDIM_V, TEXT_2),
  'v2-base': pipeline('StableDiffusionPipeline', UNET_2, PNDM, TEXT_2),
  'v2-inpainting': pipeline('StableDiffusionInpaintPipeline', { ...UNET_2, ...INPAINT }, PNDM, TEXT_2),
  'xl-base': xlPipeline('StableDiffusionXLPipeline', UNET_XL),
  'xl-inpainting': xlPipeline('StableDiffusionXLInpaintPipeline', { ...UNET_XL, ...INPAINT }),
  'xl-refiner': xlPipeline('StableDiffusionXLImg2ImgPipeline', UNET_REFINER, true),
  vae: part('vae', VAE),
  'controlnet-v1': part('controlnet', controlNet(UNET)),
  'controlnet-v2': part('controlnet', controlNet(UNET_2)),
  'controlnet-xl': part('controlnet', controlNet(UNET_XL)),
};
