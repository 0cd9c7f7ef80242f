import { join } from 'node:path';
import { readJson } from '../../config/config.js';
import { ConfigError } from '../../errors.js';
import { resolvePretrained } from '../../loaders/hub/hub.js';
import {
  type FromPretrainedOptions,
  LatentConsistencyModelPipeline,
  StableDiffusionImg2ImgPipeline,
  StableDiffusionPipeline,
} from '../../pipelines/index.js';
import { pictureSize } from '../../pipelines/stable_diffusion/outdated_configs.js';
import type { SchedulerMixin } from '../../schedulers/index.js';
import { oneOf } from '../../utils/check.js';

/** How a model is loaded; the names of `fromPretrained`. */
export interface LoadSettings {
  backend?: string;
  dtype?: string;
  attention?: string;
  variant?: string;
  revision?: string;
}

/** What the server asks of a pipeline. */
export type DrawingPipeline = StableDiffusionPipeline | StableDiffusionImg2ImgPipeline | LatentConsistencyModelPipeline;

export type Task = 'txt2img' | 'img2img' | 'inpaint';

/** A family of checkpoints: the class that loads it, those that draw other tasks with the same parts, and usual settings. */
interface Family {
  txt2img: typeof StableDiffusionPipeline | typeof LatentConsistencyModelPipeline;
  others: { readonly [T in Exclude<Task, 'txt2img'>]?: new (components: never) => DrawingPipeline };
  defaults: { steps: number; guidance_scale: number };
}

/** By the class that model_index.json names. */
const FAMILIES: Readonly<Record<string, Family>> = {
  StableDiffusionPipeline: {
    txt2img: StableDiffusionPipeline,
    others: { img2img: StableDiffusionImg2ImgPipeline },
    defaults: { steps: 20, guidance_scale: 7.5 },
  },
  LatentConsistencyModelPipeline: {
    txt2img: LatentConsistencyModelPipeline,
    others: {},
    defaults: { steps: 4, guidance_scale: 8.5 },
  },
};

/** A checkpoint in memory, ready for all of its tasks. */
export interface LoadedModel {
  txt2img: DrawingPipeline;
  tasks: { readonly [T in Task]?: DrawingPipeline };
  defaults: { steps: number; guidance_scale: number };
  trainedSize: { width: number; height: number };
  /** As the checkpoint has it. */
  scheduler: SchedulerMixin;
  attention: string;
  /** Paths of adapters by name. */
  loras: Readonly<Record<string, string>>;
  /** Fields of requests beyond the options of calls. */
  extraFields: string[];
}

/**
 * Loads a checkpoint for all tasks that its family has; they share the weights.
 *
 * @param source a directory or the id of a repository on the hub
 * @throws ConfigError for a family that is not known, and what `fromPretrained` throws
 */
export async function loadModel(
  source: string,
  { attention, ...settings }: LoadSettings,
  loras: Readonly<Record<string, string>>,
): Promise<LoadedModel> {
  const { variant, revision } = settings;
  const { dir } = await resolvePretrained(source, { variant, revision });
  const family = await familyOf(join(dir, 'model_index.json'));
  const options = { ...settings, attention } as FromPretrainedOptions;
  const txt2img = await family.txt2img.fromPretrained(source, options);
  const others = Object.entries(family.others).map(([task, Pipeline]) => [task, sharing(txt2img, Pipeline)]);
  const hires = 'img2img' in family.others ? ['hires'] : [];
  return {
    txt2img,
    tasks: { txt2img, ...Object.fromEntries(others) },
    defaults: family.defaults,
    trainedSize: pictureSize(txt2img, {}),
    scheduler: txt2img.scheduler,
    attention: attention ?? 'auto',
    loras,
    extraFields: ['token_merging_ratio', ...hires],
  };
}

async function familyOf(index: string): Promise<Family> {
  const { _class_name: name } = (await readJson(index)) as { _class_name?: unknown };
  if (typeof name !== 'string' || !Object.hasOwn(FAMILIES, name)) {
    const known = oneOf(Object.keys(FAMILIES));
    throw new ConfigError(`${index}: _class_name expects ${known}, got ${JSON.stringify(name)}`);
  }
  return FAMILIES[name]!;
}

/** A pipeline for another task with the parts of a loaded one. */
function sharing(pipe: DrawingPipeline, Pipeline: new (components: never) => DrawingPipeline): DrawingPipeline {
  const other = new Pipeline(pipe.components as never);
  other.modelName = pipe.modelName;
  other.checkpointScheduler = pipe.checkpointScheduler;
  return other;
}
