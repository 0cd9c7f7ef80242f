import { TINY_SHAPES } from '../../pipelines/index.js';
import { createServer, type Limits, type ServerOptions } from '../../server/index.js';

/** What commander hands to `serve`. */
export interface ServeValues {
  model?: string[];
  models?: string;
  loras?: string;
  host: string;
  port: number;
  apiKey: string[];
  allowedHost: string[];
  corsOrigin: string[];
  workers: number;
  memoryLimit?: number;
  maxPixels?: number;
  maxSteps?: number;
  maxPictures?: number;
  maxQueue?: number;
  keep?: number;
  backend: string;
  dtype: string;
  attention?: string;
  quiet?: boolean;
}

/** Serves until the signal comes. */
export async function serve(values: ServeValues, signal: AbortSignal): Promise<void> {
  const note = (message: string) => {
    if (!values.quiet) {
      process.stderr.write(`${new Date().toISOString()} ${message}\n`);
    }
  };
  const server = await createServer(optionsOf(values, note));
  process.stdout.write(`listening on ${server.url}\n`);
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
    if (signal.aborted) {
      resolve();
    }
  });
  await server.close();
}

function optionsOf(values: ServeValues, note: (message: string) => void): ServerOptions {
  const { model, models, loras, host, port, workers, memoryLimit, backend, dtype, attention } = values;
  return {
    model: model ?? (models === undefined ? [TINY_SHAPES] : []),
    ...{ models, loras, host, port, workers, note, attention },
    ...{ apiKeys: values.apiKey, allowedHosts: values.allowedHost, corsOrigins: values.corsOrigin },
    memoryBytes: memoryLimit && memoryLimit * 1e9,
    backend: backend === 'auto' ? undefined : backend,
    dtype,
    limits: limitsOf(values),
  };
}

/** Only what was said: the rest has defaults. */
function limitsOf({ maxPixels, maxSteps, maxPictures, maxQueue, keep }: ServeValues): Partial<Limits> {
  const limits = { pixels: maxPixels, steps: maxSteps, pictures: maxPictures, queue: maxQueue, resultSeconds: keep };
  return Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined));
}
