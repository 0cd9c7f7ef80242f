import { RequestError } from '../errors.js';
import { type DrawRequest, MAX_SEED } from '../request/draw_request.js';
import type { Limits } from '../request/limits.js';
import { withSize } from './jobs_routes.js';
import { blurred, checkBase64, inverted } from './uploads.js';

/** The fields of the web UI's requests that have a meaning here (modules/api/models.py, modules/processing.py). */
export interface WebUiBody {
  prompt?: string;
  negative_prompt?: string;
  seed?: number;
  steps?: number;
  cfg_scale?: number;
  width?: number;
  height?: number;
  batch_size?: number;
  n_iter?: number;
  sampler_name?: string;
  sampler_index?: string;
  scheduler?: string;
  eta?: number;
  s_min_uncond?: number;
  denoising_strength?: number;
  enable_hr?: boolean;
  hr_scale?: number;
  hr_upscaler?: string;
  hr_second_pass_steps?: number;
  hr_resize_x?: number;
  hr_resize_y?: number;
  init_images?: string[];
  mask?: string;
  mask_blur?: number;
  inpainting_mask_invert?: number;
  override_settings?: Record<string, unknown>;
  alwayson_scripts?: Record<string, unknown>;
  send_images?: boolean;
}

const number = (description: string) => ({ type: 'number', description });
const integer = (minimum: number, maximum: number) => ({ type: 'integer', minimum, maximum });
const text = (maxLength = 200) => ({ type: 'string', maxLength });

export const WEB_UI_FIELDS: { readonly [K in keyof Required<WebUiBody>]: object } = {
  prompt: text(20_000),
  negative_prompt: text(20_000),
  seed: { type: 'integer', minimum: -1, maximum: MAX_SEED, description: '-1 is random' },
  steps: integer(1, 100_000),
  cfg_scale: number('weight of the prompt'),
  width: integer(1, 65536),
  height: integer(1, 65536),
  batch_size: integer(1, 1000),
  n_iter: integer(1, 1000),
  sampler_name: text(),
  sampler_index: text(),
  scheduler: text(),
  eta: { type: 'number', minimum: 0, maximum: 1 },
  s_min_uncond: { type: 'number', minimum: 0, maximum: 100 },
  denoising_strength: { type: 'number', minimum: 0, maximum: 1 },
  enable_hr: { type: 'boolean' },
  hr_scale: { type: 'number', minimum: 1, maximum: 8 },
  hr_upscaler: text(),
  hr_second_pass_steps: integer(0, 100_000),
  hr_resize_x: integer(0, 65536),
  hr_resize_y: integer(0, 65536),
  init_images: { type: 'array', maxItems: 16, items: { type: 'string' } },
  mask: { type: 'string' },
  mask_blur: { type: 'number', minimum: 0, maximum: 64 },
  inpainting_mask_invert: integer(0, 1),
  override_settings: { type: 'object' },
  alwayson_scripts: { type: 'object' },
  send_images: { type: 'boolean' },
};

/** Fields of the web UI that mean nothing here; no notes of them. */
export const WEB_UI_WITHOUT_MEANING: readonly string[] = [
  ...['styles', 'subseed', 'subseed_strength', 'seed_resize_from_h', 'seed_resize_from_w', 'restore_faces', 'tiling'],
  ...['do_not_save_samples', 'do_not_save_grid', 'save_images', 'override_settings_restore_afterwards', 'script_args'],
  ...['script_name', 's_churn', 's_tmin', 's_tmax', 's_noise', 'firstphase_width', 'firstphase_height', 'comments'],
  ...['hr_prompt', 'hr_negative_prompt', 'hr_sampler_name', 'hr_scheduler', 'hr_checkpoint_name', 'refiner_checkpoint'],
  ...['refiner_switch_at', 'disable_extra_networks', 'resize_mode', 'inpaint_full_res', 'inpaint_full_res_padding'],
  ...['inpainting_fill', 'mask_blur_x', 'mask_blur_y', 'mask_round', 'initial_noise_multiplier', 'image_cfg_scale'],
  ...['include_init_images', 'force_task_id', 'infotext', 'sampler', 'clip_skip', 'user', 'use_deprecated_controlnet'],
];

/** The second pass: the web UI's upscalers beside latent ones enlarge the picture; all of them are Lanczos here. */
function hiresOf(body: WebUiBody): DrawRequest['hires'] {
  if (!body.enable_hr) {
    return undefined;
  }
  const { width = 512, hr_resize_x: wanted = 0, hr_scale = 2, hr_second_pass_steps: steps = 0 } = body;
  const { hr_upscaler = 'Latent', denoising_strength: strength = 0.75 } = body;
  return {
    scale: wanted > 0 ? wanted / width : hr_scale,
    upscaler: /^latent/i.test(hr_upscaler) ? 'latent' : 'lanczos',
    strength,
    ...(steps > 0 ? { steps } : {}),
  };
}

/** Settings that hold for one request, as far as they have a meaning here. */
function settingsOf({ override_settings: settings = {} }: WebUiBody): Partial<DrawRequest> {
  const { sd_model_checkpoint: model, CLIP_stop_at_last_layers: layers, token_merging_ratio: ratio } = settings;
  return {
    ...(typeof model === 'string' && model !== '' ? { model: model.replace(/ \[[0-9a-f]+\]$/, '') } : {}),
    ...(typeof layers === 'number' && layers > 1 && layers <= 100 ? { clip_skip: Math.floor(layers) - 1 } : {}),
    ...(typeof ratio === 'number' && ratio > 0 && ratio <= 0.75 ? { token_merging_ratio: ratio } : {}),
  };
}

/** A request of the web UI's text-to-image in our words. */
export function textRequest(body: WebUiBody): DrawRequest {
  const { seed = -1, batch_size = 1, n_iter = 1, sampler_index, sampler_name = sampler_index } = body;
  return {
    ...{ prompt: body.prompt ?? '', negative_prompt: body.negative_prompt },
    ...{ width: body.width, height: body.height, steps: body.steps, guidance_scale: body.cfg_scale },
    ...{ sampler: sampler_name || undefined, scheduler: body.scheduler || undefined, n: batch_size * n_iter },
    ...{ eta: body.eta, negative_guidance_min_sigma: body.s_min_uncond, hires: hiresOf(body) },
    ...{ seed: seed < 0 ? undefined : seed, prompt_syntax: 'a1111', lenient: true },
    ...settingsOf(body),
  };
}

/** The same of image-to-image, with a mask of inpainting. @throws RequestError for pictures that are none */
export async function imageRequest(body: WebUiBody, limits: Limits): Promise<DrawRequest> {
  const [first] = body.init_images ?? [];
  if (first === undefined) {
    throw new RequestError('init_images expects at least one picture in base64', 422);
  }
  const image = await checkBase64('init_images', first, limits);
  const request = { ...textRequest(body), hires: undefined, strength: body.denoising_strength ?? 0.75 };
  const mask = body.mask ? await maskOf(body, body.mask, limits) : undefined;
  return { ...request, ...withSize(request, image, limits), image: image.bytes, mask };
}

async function maskOf(body: WebUiBody, mask: string, limits: Limits): Promise<Uint8Array> {
  const { bytes } = await checkBase64('mask', mask, limits);
  const area = body.inpainting_mask_invert === 1 ? await inverted(bytes) : bytes;
  return blurred(area, body.mask_blur ?? 4);
}
