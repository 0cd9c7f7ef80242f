/**
 * The library, away from the page's own thread. Takes messages { type: 'draw', settings, files }, { type: 'cancel' },
 * { type: 'models' } and { type: 'forget', id }; answers with what `post` sends.
 */
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import {
  AbortedError,
  createScheduler,
  deleteCachedModel,
  listCachedModels,
  mountFiles,
  StableDiffusionPipeline,
  schedulerNames,
} from 'tfjs-diffusers';

setWasmPaths(new URL('wasm/', import.meta.url).href);

const post = (message, transfer = []) => self.postMessage(message, transfer);
let loaded; // { key, pipe, scheduler }: one model at a time is in memory
let stop = new AbortController();

/** Files of a directory: a message carries them without their places, which come beside them. */
function mount(chosen) {
  for (const { file, path } of chosen) {
    Object.defineProperty(file, 'webkitRelativePath', { value: path });
  }
  return mountFiles(
    'chosen',
    chosen.map(({ file }) => file),
  );
}

async function pipelineFor({ model, backend, dtype }, files) {
  const key = JSON.stringify([model, backend, dtype, files?.map(({ path, file }) => [path, file.size])]);
  if (loaded?.key !== key) {
    loaded?.pipe.dispose();
    loaded = undefined;
    const address = files
      ? mount(files)
      : /^[./]|:|^models\//.test(model)
        ? new URL(model, self.location.href).href
        : model;
    const pipe = await StableDiffusionPipeline.fromPretrained(address, {
      backend,
      dtype,
      signal: stop.signal,
      onProgress: (progress) => post({ type: 'loading', progress }),
    });
    loaded = { key, pipe, scheduler: pipe.scheduler };
  }
  return loaded;
}

function optionsOf({ negativePrompt, steps, seed, width, height, guidanceScale }) {
  return {
    negativePrompt,
    numInferenceSteps: steps,
    guidanceScale,
    ...(seed && { seed: BigInt(seed) }),
    ...(width && { width }),
    ...(height && { height }),
    preview: 'linear',
    signal: stop.signal,
    onProgress: ({ step, total, seconds, preview: [picture] = [] }) => {
      const preview = picture && { width: picture.width, height: picture.height, data: picture.data };
      post({ type: 'step', step, total, seconds, preview });
    },
  };
}

async function draw(settings, files) {
  stop = new AbortController();
  const { pipe, scheduler } = await pipelineFor(settings, files);
  pipe.scheduler = settings.scheduler ? createScheduler(settings.scheduler, scheduler.config) : scheduler;
  const { images, seeds, timings } = await pipe(settings.prompt, optionsOf(settings));
  const [{ width, height }] = images;
  const png = await images[0].toBuffer('png');
  post({ type: 'drawn', png, width, height, seed: String(seeds[0]), seconds: timings.total });
}

const HANDLERS = {
  draw: ({ settings, files }) => draw(settings, files),
  cancel: () => stop.abort(),
  models: async () => post({ type: 'models', models: await listCachedModels() }),
  forget: async ({ id }) => {
    await deleteCachedModel(id);
    post({ type: 'models', models: await listCachedModels() });
  },
};

self.onmessage = async ({ data }) => {
  try {
    await HANDLERS[data.type](data);
  } catch (error) {
    post(error instanceof AbortedError ? { type: 'cancelled' } : { type: 'failed', message: error.message });
  }
};

post({ type: 'ready', schedulers: schedulerNames().shortNames });
