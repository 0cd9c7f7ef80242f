import { files } from '#platform';
import { type AttentionSetting, resolveAttention } from '../../attention/index.js';
import type { BackendName } from '../../backends/index.js';
import type { PhysicalType } from '../../backends/types.js';
import { ConfigReader, readJson, writeJson } from '../../config/config.js';
import { ConfigError, InvalidArgumentError } from '../../errors.js';
import { type DownloadProgress, type ResolveOptions, resolvePretrained } from '../../loaders/hub/hub.js';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../../models/index.js';
import { checkSaveOptions } from '../../models/model.js';
import { type SchedulerConfigJson, type SchedulerMixin, schedulerFromConfig } from '../../schedulers/index.js';
import { CLIPTokenizer } from '../../tokenizers/index.js';
import { baseName, joinPath } from '../../utils/paths.js';
import type { StableDiffusionComponents } from '../stable_diffusion/pipeline_stable_diffusion.js';
import { checkAborted, describe, ensureBackend, usableType } from './pipeline_utils.js';

/** Progress of reading weights: tensors of one component. */
export interface LoadProgress {
  stage: 'load';
  component: string;
  loaded: number;
  total: number;
}

export interface FromPretrainedOptions extends Omit<ResolveOptions, 'onProgress'>, Partial<StableDiffusionComponents> {
  /** tfjs backend to draw on. Default: the active one, else the fastest that works here. */
  backend?: 'auto' | BackendName;
  /** How native backends store weights and activations; wasm and cpu always compute in float32. Default 'float32'. */
  dtype?: PhysicalType;
  /** How attention is computed: a name of ATTENTION_NAMES, or an object with one and its options. */
  attention?: AttentionSetting;
  onProgress?: (progress: LoadProgress | ({ stage: 'download' } & DownloadProgress)) => void;
}

const PIPELINES = ['StableDiffusionPipeline'];
const EXPECTED = {
  text_encoder: ['CLIPTextModel'],
  tokenizer: ['CLIPTokenizer', 'CLIPTokenizerFast'],
  unet: ['UNet2DConditionModel'],
  vae: ['AutoencoderKL'],
} as const;

/** Checks that model_index.json describes a pipeline that we can draw with. */
function checkIndex(index: ConfigReader): void {
  const name = index.string('_class_name', 'StableDiffusionPipeline');
  if (!PIPELINES.includes(name)) {
    throw index.error('_class_name', PIPELINES.join(' or '));
  }
  for (const [component, classes] of Object.entries(EXPECTED)) {
    const entry = index.raw(component);
    const className = Array.isArray(entry) ? entry[1] : undefined;
    if (!(classes as readonly unknown[]).includes(className)) {
      throw index.error(component, `[library, ${classes.join(' or ')}]`);
    }
  }
}

/** The scheduler in a checkpoint, of the class that model_index.json or, failing that, its own configuration names. */
async function loadScheduler(path: string, index: ConfigReader): Promise<SchedulerMixin> {
  const config = await readJson(path);
  const own = new ConfigReader(config, path);
  const entry = index.raw('scheduler');
  const name = Array.isArray(entry) && typeof entry[1] === 'string' ? entry[1] : own.raw('_class_name');
  return schedulerFromConfig({ ...(config as SchedulerConfigJson), ...(name === null ? {} : { _class_name: name }) });
}

/** Finds or downloads a checkpoint and loads the components that the options do not already give. */
export async function loadStableDiffusionComponents(
  idOrDir: string,
  options: FromPretrainedOptions,
): Promise<{ components: StableDiffusionComponents; modelName: string }> {
  if (typeof idOrDir !== 'string' || idOrDir === '') {
    throw new InvalidArgumentError(
      `[fromPretrained] expects a directory or the id of a repository on the hub, got ${describe(idOrDir)}`,
    );
  }
  checkLoadOptions(options);
  const { signal, onProgress, variant, attention } = options;
  const { dir } = await resolvePretrained(idOrDir, {
    ...options,
    onProgress: onProgress && ((progress) => onProgress({ stage: 'download', ...progress })),
  });
  const path = joinPath(dir, 'model_index.json');
  const index = new ConfigReader(await readJson(path), path);
  checkIndex(index);
  const at = (component: string) => joinPath(dir, component);
  const scheduler =
    options.scheduler ?? (await loadScheduler(joinPath(at('scheduler'), 'scheduler_config.json'), index));
  const tokenizer = options.tokenizer ?? (await CLIPTokenizer.fromPretrained(at('tokenizer')));
  checkAborted(signal, 'loading');
  await ensureBackend(options.backend);
  const common = { dtype: usableType(options.dtype ?? 'float32'), variant, attention, signal };
  const progressOf = (component: string) =>
    onProgress && ((loaded: number, total: number) => onProgress({ stage: 'load', component, loaded, total }));
  const loaded: { dispose(): void }[] = [];
  const keep = async <T extends { dispose(): void }>(given: T | undefined, load: () => Promise<T>): Promise<T> => {
    if (given) {
      return given;
    }
    const model = await load();
    loaded.push(model);
    return model;
  };
  try {
    const textEncoder = await keep(options.textEncoder, () =>
      CLIPTextModel.fromPretrained(at('text_encoder'), { ...common, onProgress: progressOf('text_encoder') }),
    );
    const unet = await keep(options.unet, () =>
      UNet2DConditionModel.fromPretrained(at('unet'), { ...common, onProgress: progressOf('unet') }),
    );
    const vae = await keep(options.vae, () =>
      AutoencoderKL.fromPretrained(at('vae'), { ...common, onProgress: progressOf('vae') }),
    );
    checkFit(textEncoder, unet, vae);
    return { components: { tokenizer, textEncoder, unet, vae, scheduler }, modelName: nameOf(idOrDir) };
  } catch (error) {
    for (const model of loaded) {
      model.dispose();
    }
    throw error;
  }
}

const DTYPES: readonly unknown[] = ['float32', 'bfloat16', 'float16', undefined];

/** @throws InvalidArgumentError for what would otherwise show up late or never */
function checkLoadOptions(options: FromPretrainedOptions): void {
  const expect = (ok: boolean, name: keyof FromPretrainedOptions, what: string) => {
    if (!ok) {
      throw new InvalidArgumentError(`[fromPretrained] ${name} must be ${what}, got ${describe(options[name])}`);
    }
  };
  const { dtype, onProgress, signal, attention, variant } = options;
  expect(DTYPES.includes(dtype), 'dtype', "'float32', 'bfloat16' or 'float16'");
  expect(variant === undefined || (typeof variant === 'string' && variant !== ''), 'variant', "a name such as 'fp16'");
  expect(onProgress === undefined || typeof onProgress === 'function', 'onProgress', 'a function');
  expect(signal === undefined || typeof signal?.aborted === 'boolean', 'signal', 'an AbortSignal');
  resolveAttention(attention);
}

/** 'acme/tiny-shapes' and '/models/tiny-shapes/' are both tiny-shapes. */
function nameOf(idOrDir: string): string {
  return baseName(idOrDir);
}

function checkFit(textEncoder: CLIPTextModel, unet: UNet2DConditionModel, vae: AutoencoderKL): void {
  const { hiddenSize } = textEncoder.parsed;
  const crossAttentionDim = unet.parsed.crossAttentionDim[0];
  if (hiddenSize !== crossAttentionDim) {
    throw new ConfigError(
      `the text encoder gives ${hiddenSize} channels, but the UNet's cross_attention_dim is ${crossAttentionDim}; ` +
        'they come from different checkpoints',
    );
  }
  if (unet.parsed.inChannels !== vae.parsed.latentChannels) {
    throw new ConfigError(
      `text to picture needs a UNet with as many input channels as the VAE has latent channels ` +
        `(${vae.parsed.latentChannels}), got ${unet.parsed.inChannels}: this is a checkpoint for another task`,
    );
  }
}

/** Writes every component and model_index.json into `dir`. */
export async function saveStableDiffusionComponents(
  components: StableDiffusionComponents,
  dir: string,
  options: { dtype?: 'F32' | 'F16' | 'BF16'; variant?: string },
): Promise<void> {
  const { tokenizer, textEncoder, unet, vae, scheduler } = components;
  if (!(tokenizer instanceof CLIPTokenizer)) {
    throw new InvalidArgumentError(
      '[savePretrained] a tokenizer of transformers.js cannot be saved; load the pipeline with its own tokenizer',
    );
  }
  checkSaveOptions(options);
  await files.makeDirectory(dir);
  await tokenizer.savePretrained(joinPath(dir, 'tokenizer'));
  await textEncoder.savePretrained(joinPath(dir, 'text_encoder'), options);
  await unet.savePretrained(joinPath(dir, 'unet'), options);
  await vae.savePretrained(joinPath(dir, 'vae'), options);
  await files.makeDirectory(joinPath(dir, 'scheduler'));
  await writeJson(joinPath(dir, 'scheduler', 'scheduler_config.json'), scheduler.toConfig());
  await writeJson(joinPath(dir, 'model_index.json'), {
    _class_name: 'StableDiffusionPipeline',
    _diffusers_version: '0.40.0',
    feature_extractor: [null, null],
    image_encoder: [null, null],
    requires_safety_checker: false,
    safety_checker: [null, null],
    scheduler: ['diffusers', scheduler.className],
    text_encoder: ['transformers', 'CLIPTextModel'],
    tokenizer: ['transformers', 'CLIPTokenizer'],
    unet: ['diffusers', 'UNet2DConditionModel'],
    vae: ['diffusers', 'AutoencoderKL'],
  });
}
