import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { encodeFromFloat32 } from '../../src/loaders/safetensors/number_formats.js';
import { type SafetensorsEntry, writeSafetensors } from '../../src/loaders/safetensors/writer.js';
import {
  AutoencoderKL,
  CLIPTextModel,
  CLIPTextModelWithProjection,
  ControlNetModel,
  UNet2DConditionModel,
} from '../../src/models/index.js';
import { generatedState } from './generated_weights.js';

/** Configurations of the components of a pipeline, and the tokenizer's padding. */
export interface PipelineConfigs {
  unet: Record<string, unknown>;
  vae: Record<string, unknown>;
  /** null for SDXL's refiner, which has the second one alone. */
  text_encoder: Record<string, unknown> | null;
  /** SDXL. */
  text_encoder_2?: Record<string, unknown>;
  /** Settings of model_index.json. */
  config?: Record<string, boolean>;
  scheduler: Record<string, unknown>;
  /** One ControlNet, or several. */
  controlnet?: Record<string, unknown> | Record<string, unknown>[];
  pad: string;
}

export type WeightDtype = 'F32' | 'F16' | 'BF16';

const CLASSES = {
  unet: UNet2DConditionModel,
  vae: AutoencoderKL,
  text_encoder: CLIPTextModel,
  text_encoder_2: CLIPTextModelWithProjection,
  controlnet: ControlNetModel,
};
export type ModelName = Exclude<keyof typeof CLASSES, 'controlnet'>;
export const MODEL_NAMES: readonly ModelName[] = ['unet', 'vae', 'text_encoder'];

/** The weights of a component as entries of a safetensors file. */
export function weightEntries(
  component: keyof typeof CLASSES,
  config: Record<string, unknown>,
  dtype: WeightDtype = 'F32',
): SafetensorsEntry[] {
  const model = CLASSES[component].fromConfig(config);
  return [...generatedState(model.parameters)].map(([name, { shape, data }]) => ({
    name,
    dtype,
    shape,
    data: () => encodeFromFloat32(data, dtype),
  }));
}

/** File name of a component's weights. */
export function weightsFile(component: keyof typeof CLASSES, variant?: string): string {
  return `${CLASSES[component].weightsName}.${variant ? `${variant}.` : ''}safetensors`;
}

async function writeObject(path: string, value: unknown): Promise<void> {
  await writeFile(path, JSON.stringify(value));
}

/** Writes the tokenizer, which pads with `pad`, into `dir`. */
async function writeTokenizer(dir: string, pad: string): Promise<void> {
  await cp('weights/tiny-shapes/tokenizer', dir, { recursive: true });
  for (const file of ['special_tokens_map.json', 'tokenizer_config.json']) {
    const path = join(dir, file);
    await writeObject(path, { ...JSON.parse(await readFile(path, 'utf8')), pad_token: pad });
  }
}

/** Writes a pipeline with generated weights into `dir`, in diffusers' layout. */
export async function writeCheckpoint(
  dir: string,
  configs: PipelineConfigs,
  options: { dtype?: WeightDtype; variant?: string } = {},
): Promise<void> {
  const xl = configs.text_encoder_2 !== undefined;
  const names = [...MODEL_NAMES, 'text_encoder_2' as const].filter((name) => configs[name]);
  for (const folder of ['scheduler', ...names]) {
    await mkdir(join(dir, folder), { recursive: true });
  }
  const tokenizers = names
    .filter((name) => name.startsWith('text_'))
    .map((name) => name.replace('text_encoder', 'tokenizer'));
  for (const tokenizer of tokenizers) {
    await writeTokenizer(join(dir, tokenizer), configs.pad);
  }
  await writeObject(join(dir, 'scheduler', 'scheduler_config.json'), configs.scheduler);
  for (const component of names) {
    await writeObject(join(dir, component, 'config.json'), configs[component]);
    const path = join(dir, component, weightsFile(component, options.variant));
    await writeSafetensors(path, weightEntries(component, configs[component]!, options.dtype));
  }
  const controlnets = [configs.controlnet ?? []].flat();
  for (const [i, config] of controlnets.entries()) {
    const folder = join(dir, i === 0 ? 'controlnet' : `controlnet_${i}`);
    await mkdir(folder, { recursive: true });
    await writeObject(join(folder, 'config.json'), config);
    await writeSafetensors(join(folder, weightsFile('controlnet')), weightEntries('controlnet', config));
  }
  const controlnet = controlnets.length > 1 ? 'MultiControlNetModel' : 'ControlNetModel';
  const libraryOf = (name: string) => (name.startsWith('text_') ? 'transformers' : 'diffusers');
  const entries = names.map((name) => [name, [libraryOf(name), CLASSES[name].name]]);
  await writeObject(join(dir, 'model_index.json'), {
    ...(controlnets.length > 0 && { controlnet: ['diffusers', controlnet] }),
    _class_name: xl ? 'StableDiffusionXLPipeline' : 'StableDiffusionPipeline',
    ...configs.config,
    scheduler: ['diffusers', configs.scheduler._class_name],
    ...(xl && !configs.text_encoder ? { text_encoder: [null, null], tokenizer: [null, null] } : {}),
    ...Object.fromEntries(tokenizers.map((name) => [name, ['transformers', 'CLIPTokenizer']])),
    ...Object.fromEntries(entries),
  });
}
