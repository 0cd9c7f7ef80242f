import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { type Catalog, LocalCatalog, modelSources } from './engine/catalog.js';
import { EnginePool } from './engine/engine_pool.js';
import type { LoadSettings } from './engine/loaded_model.js';
import { RequestError } from './errors.js';
import { createApp } from './http/app.js';
import type { ServerContext } from './http/context.js';
import { Metrics } from './http/health_routes.js';
import { isLoopback } from './http/security.js';
import type { JobQueue } from './jobs/job.js';
import { LocalQueue } from './jobs/local_queue.js';
import { packageVersion } from './package_version.js';
import { DEFAULT_LIMITS, type Limits } from './request/limits.js';

export interface ServerOptions extends LoadSettings {
  /** Directories, files or ids of the hub; the first one is the default model. */
  model?: string | readonly string[];
  /** A directory whose checkpoints are all offered. */
  models?: string;
  /** A directory with LoRA files, which requests name without extension. */
  loras?: string;
  /** Address to listen at. Default 127.0.0.1: nobody else reaches it. */
  host?: string;
  /** Default 7860; 0 takes a free one. */
  port?: number;
  /** Keys that clients must show one of. */
  apiKeys?: readonly string[];
  /** Origins of pages that may use the server. */
  corsOrigins?: readonly string[];
  /** Names of this server beside its addresses. */
  allowedHosts?: readonly string[];
  /** Jobs that are drawn at the same time, each in a process of its own. Default 1. */
  workers?: number;
  /** Bytes that all models in memory may take together. Default nine tenths of the machine's. */
  memoryBytes?: number;
  limits?: Partial<Limits>;
  /** Milliseconds in which the headers of a request must have come. Default 15,000. */
  headersTimeout?: number;
  /** Told in a sentence what is worth knowing. Default: nobody. */
  note?: (message: string) => void;
}

/** A server that listens. */
export interface PictureServer {
  /** http://127.0.0.1:7860 */
  url: string;
  app: FastifyInstance;
  queue: JobQueue;
  /** Cancels all jobs, ends all processes and closes the port. */
  close(): Promise<void>;
}

interface Parts {
  queue: JobQueue;
  catalog: Catalog;
  close(): Promise<void> | void;
}

/**
 * Starts a server that draws pictures for clients of OpenAI's and stable-diffusion-webui's APIs and has a page of its own.
 *
 * @throws what loading the first model throws; then nothing is left running
 */
export async function createServer(options: ServerOptions): Promise<PictureServer> {
  const { note = () => undefined, host = '127.0.0.1', port = 7860, apiKeys = [] } = options;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const metrics = new Metrics();
  const parts = localParts(options, limits, metrics);
  try {
    const { name } = await parts.catalog.load();
    const context = { ...parts, limits, hasKeys: apiKeys.length > 0, note, model: { current: name } };
    const app = await startApp(options, context, metrics);
    await app.listen({ host, port });
    return serverOf(app, host, parts);
  } catch (error) {
    await parts.close();
    throw error;
  }
}

function startApp(options: ServerOptions, context: ServerContext, metrics: Metrics): Promise<FastifyInstance> {
  const { host = '127.0.0.1', apiKeys = [], corsOrigins = [], allowedHosts = [], headersTimeout } = options;
  if (!isLoopback(host) && apiKeys.length === 0) {
    context.note(`everybody who reaches ${host} can draw: there is no API key`);
  }
  const security = { host, apiKeys, corsOrigins, allowedHosts };
  return createApp(context, metrics, { ...security, version: packageVersion(), headersTimeout });
}

function localParts(options: ServerOptions, limits: Limits, metrics: Metrics): Parts {
  const {
    model = [],
    models: directory,
    loras,
    workers = 1,
    memoryBytes,
    backend,
    dtype,
    attention,
    variant,
    revision,
  } = options;
  const settings = { backend, dtype, attention, variant, revision };
  const models = modelSources({ models: [model].flat(), directory, loras, settings });
  if (models().length === 0) {
    throw new RequestError('there is no model to serve: give --model or a directory with checkpoints as --models');
  }
  const pool = new EnginePool({ models, workers, memoryBytes });
  const queue = new LocalQueue(pool, workers, limits, (view, seconds) => metrics.ended(view, seconds));
  metrics.watch('engine_bytes', 'Memory that the engines take', () => pool.bytes);
  metrics.watch('models_loaded', 'Models in memory', () => pool.loaded.length);
  const close = async () => {
    await queue.close();
    pool.close();
  };
  return { queue, catalog: new LocalCatalog(pool), close };
}

function serverOf(app: FastifyInstance, host: string, parts: Parts): PictureServer {
  const { port } = app.server.address() as AddressInfo;
  const name = host.includes(':') ? `[${host}]` : host;
  return {
    url: `http://${name}:${port}`,
    app,
    queue: parts.queue,
    close: async () => {
      await parts.close();
      await app.close();
    },
  };
}
