import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { encodeFromFloat32 } from '../../src/loaders/safetensors/number_formats.js';
import { type SafetensorsEntry, writeSafetensors } from '../../src/loaders/safetensors/writer.js';
import { AutoencoderKL, CLIPTextModel, ControlNetModel, UNet2DConditionModel } from '../../src/models/index.js';
import { generatedState } from './generated_weights.js';

/** Configurations of the components of a pipeline, and the tokenizer's padding. */
export interface PipelineConfigs {
  unet: Record<string, unknown>;
  vae: Record<string, unknown>;
  text_encoder: Record<string, unknown>;
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
  controlnet: ControlNetModel,
};
export type ModelName = Exclude<keyof typeof CLASSES, 'controlnet'>;
export const MODEL_NAMES: ModelName[] = ['unet', 'vae', 'text_encoder'];

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

/** Writes a pipeline with generated weights into `dir`, in diffusers' layout. */
export async function writeCheckpoint(
  dir: string,
  configs: PipelineConfigs,
  options: { dtype?: WeightDtype; variant?: string } = {},
): Promise<void> {
  for (const folder of ['scheduler', ...MODEL_NAMES]) {
    await mkdir(join(dir, folder), { recursive: true });
  }
  await cp('weights/tiny-shapes/tokenizer', join(dir, 'tokenizer'), { recursive: true });
  for (const file of ['special_tokens_map.json', 'tokenizer_config.json']) {
    const path = join(dir, 'tokenizer', file);
    await writeObject(path, { ...JSON.parse(await readFile(path, 'utf8')), pad_token: configs.pad });
  }
  await writeObject(join(dir, 'scheduler', 'scheduler_config.json'), configs.scheduler);
  for (const component of MODEL_NAMES) {
    await writeObject(join(dir, component, 'config.json'), configs[component]);
    const path = join(dir, component, weightsFile(component, options.variant));
    await writeSafetensors(path, weightEntries(component, configs[component], options.dtype));
  }
  const controlnets = [configs.controlnet ?? []].flat();
  for (const [i, config] of controlnets.entries()) {
    const folder = join(dir, i === 0 ? 'controlnet' : `controlnet_${i}`);
    await mkdir(folder, { recursive: true });
    await writeObject(join(folder, 'config.json'), config);
    await writeSafetensors(join(folder, weightsFile('controlnet')), weightEntries('controlnet', config));
  }
  const controlnet = controlnets.length > 1 ? 'MultiControlNetModel' : 'ControlNetModel';
  await writeObject(join(dir, 'model_index.json'), {
    ...(controlnets.length > 0 && { controlnet: ['diffusers', controlnet] }),
    _class_name: 'StableDiffusionPipeline',
    scheduler: ['diffusers', configs.scheduler._class_name],
    text_encoder: ['transformers', 'CLIPTextModel'],
    tokenizer: ['transformers', 'CLIPTokenizer'],
    unet: ['diffusers', 'UNet2DConditionModel'],
    vae: ['diffusers', 'AutoencoderKL'],
  });
}
