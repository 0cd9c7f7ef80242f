import * as tf from '@tensorflow/tfjs-core';
import { ATTENTION_NAMES } from '../../attention/methods/options.js';
import { samplerName } from '../../pipelines/common/sampler_names.js';
import { CALL_OPTIONS } from './call_options.js';
import type { LoadedModel } from './loaded_model.js';

/** What a loaded model can be asked for. */
export interface Capabilities {
  /** Class of the pipeline, by diffusers' name. */
  pipeline: string;
  tasks: string[];
  /** Fields of a request that change its pictures. */
  fields: string[];
  defaults: { steps: number; guidance_scale: number; width: number; height: number; sampler: string };
  /** Sizes are multiples of it. */
  size_multiple: number;
  attention: string[];
  loras: string[];
  /** Most tokens of a prompt that are read; undefined where prompts of any length are. */
  max_tokens: number;
  backend: string;
  dtype: string;
}

/** Fields that every pipeline takes because the server itself brings them about. */
const OF_THE_SERVER = [
  'prompt',
  'model',
  'sampler',
  'scheduler',
  'seed',
  'n',
  'attention',
  'output_format',
  'output_quality',
  'previews',
  'preview_method',
  'priority',
];

/** What a model can do is asked of its pipelines, so that no second list of it exists. */
export function capabilitiesOf(model: LoadedModel): Capabilities {
  const { txt2img, tasks, defaults, loras } = model;
  const options = new Set(Object.values(tasks).flatMap((pipe) => pipe.optionNames));
  const fields = Object.entries(CALL_OPTIONS).flatMap(([field, option]) => (options.has(option) ? [field] : []));
  const { scaleFactor } = txt2img.vae;
  return {
    pipeline: txt2img.className,
    tasks: Object.keys(tasks),
    fields: [...fields, ...OF_THE_SERVER, ...model.extraFields, ...(Object.keys(loras).length > 0 ? ['lora'] : [])],
    defaults: { ...defaults, ...model.trainedSize, sampler: samplerName(txt2img.scheduler) },
    size_multiple: scaleFactor,
    attention: [...ATTENTION_NAMES],
    loras: Object.keys(loras),
    max_tokens: txt2img.tokenizer.modelMaxLength,
    backend: tf.getBackend(),
    dtype: txt2img.unet.dtype,
  };
}
