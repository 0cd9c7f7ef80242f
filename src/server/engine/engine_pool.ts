import { statSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { join } from 'node:path';
import { AbortedError, OutOfMemoryError } from '../../errors.js';
import { UnknownModelError } from '../errors.js';
import type { DrawRequest } from '../request/draw_request.js';
import type { Capabilities } from './capabilities.js';
import { type DrawWatch, Engine, type ModelSource } from './engine.js';
import type { Picture } from './messages.js';

export interface PoolOptions {
  /** In the order in which they are listed; the first one is the default. */
  models: () => ModelSource[];
  /** Jobs that are drawn at the same time. */
  workers: number;
  /** Bytes that all engines together may take. */
  memoryBytes?: number;
}

/** What a process takes beside its weights. */
const PROCESS_BYTES = 250e6;

/**
 * Processes that draw, each with one model. A model is loaded when the first job asks for it; when memory runs short, the
 * model that was used longest ago is unloaded.
 */
export class EnginePool {
  /** The one used longest ago first. */
  private engines: Engine[] = [];
  private readonly busy = new Set<Engine>();
  private readonly known = new Map<string, Capabilities>();
  /** Told when an engine has become free or has ended. */
  private waiting: (() => void)[] = [];
  private changes = 0;
  /** Loading changes who may be unloaded, so that one goes on at a time. */
  private turn: Promise<unknown> = Promise.resolve();
  private reserved = 0;
  private closed = false;

  constructor(private readonly options: PoolOptions) {}

  get models(): ModelSource[] {
    return this.options.models();
  }

  /** @throws UnknownModelError */
  find(name: string | undefined): ModelSource {
    const { models } = this;
    const found = name === undefined ? models[0] : models.find((model) => model.name === name);
    if (!found) {
      throw new UnknownModelError(
        name ?? '',
        models.map((model) => model.name),
      );
    }
    return found;
  }

  /** What a model can be asked for; undefined until it was loaded once. */
  capabilities(name: string): Capabilities | undefined {
    return this.known.get(name);
  }

  /** Names of the models that are in memory. */
  get loaded(): string[] {
    return [...new Set(this.engines.filter(({ alive }) => alive).map(({ model }) => model.name))];
  }

  /** Bytes that the engines take. */
  get bytes(): number {
    return this.engines.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Processes that draw, by id. */
  get processes(): { pid: number; model: string; busy: boolean; bytes: number }[] {
    return this.engines.map((engine) => ({
      pid: engine.pid ?? 0,
      model: engine.model.name,
      busy: this.busy.has(engine),
      bytes: engine.bytes,
    }));
  }

  /** Loads a model, if it is not, and says what it can do. */
  async load(name: string | undefined): Promise<Capabilities> {
    const model = this.find(name);
    const known = this.loaded.includes(model.name) ? this.known.get(model.name) : undefined;
    if (known) {
      return known;
    }
    const engine = await this.take(model, new AbortController().signal);
    this.free(engine);
    return engine.capabilities!;
  }

  /**
   * Draws a request with its model, which is loaded if it is not.
   *
   * @throws UnknownModelError, AbortedError through the signal, EngineCrashError, and what loading and drawing throw
   */
  async draw(request: DrawRequest, watch: DrawWatch): Promise<Picture[]> {
    const engine = await this.take(this.find(request.model), watch.signal);
    try {
      return await engine.draw(request, watch);
    } finally {
      this.free(engine);
    }
  }

  /** Ends all processes. */
  close(): void {
    this.closed = true;
    for (const engine of this.engines) {
      engine.close();
    }
    this.wake();
  }

  /** An engine with the model that is nobody else's until `free`. */
  private async take(model: ModelSource, signal: AbortSignal): Promise<Engine> {
    for (;;) {
      if (signal.aborted || this.closed) {
        throw new AbortedError('drawing was stopped before it began', { cause: signal.reason });
      }
      const idle = this.engines.find((engine) => this.isIdle(engine) && engine.model.name === model.name);
      if (idle) {
        return this.mark(idle);
      }
      const seen = this.changes;
      const started = await this.inTurn(() => this.tryStart(model));
      if (started) {
        return started;
      }
      if (seen === this.changes) {
        await this.change(signal);
      }
    }
  }

  /** Waits until an engine has become free or has ended. */
  private async change(signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      this.waiting.push(resolve);
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  private isIdle(engine: Engine): boolean {
    return engine.alive && !this.busy.has(engine);
  }

  private inTurn<T>(f: () => Promise<T>): Promise<T> {
    const result = this.turn.then(f);
    this.turn = result.catch(() => undefined);
    return result;
  }

  /** A new engine; undefined when others must become free first. */
  private async tryStart(model: ModelSource): Promise<Engine | undefined> {
    const idle = this.engines.find((engine) => this.isIdle(engine) && engine.model.name === model.name);
    if (idle) {
      return this.mark(idle);
    }
    const bytes = await expectedBytes(model);
    if (!this.makeRoom(model.name, bytes)) {
      return undefined;
    }
    this.reserved += bytes;
    try {
      const engine = await Engine.start(model, this.threads, (ended) => this.remove(ended));
      this.known.set(model.name, engine.capabilities!);
      this.engines.push(engine);
      return this.mark(engine);
    } finally {
      this.reserved -= bytes;
    }
  }

  private get threads(): number | undefined {
    const { workers } = this.options;
    return workers === 1 ? undefined : Math.max(1, Math.floor(availableParallelism() / workers));
  }

  /**
   * Unloads idle models, the one used longest ago first, until there is room.
   *
   * @returns false when engines must become free first
   * @throws OutOfMemoryError for a model that fits into no room
   */
  private makeRoom(name: string, bytes: number): boolean {
    const limit = this.options.memoryBytes ?? 0.9 * totalmem();
    if (bytes > limit) {
      const gigabytes = (value: number) => `${(value / 1e9).toFixed(1)} GB`;
      throw new OutOfMemoryError(
        `'${name}' takes about ${gigabytes(bytes)}, more than the ${gigabytes(limit)} that models may take ` +
          'together; start the server with a larger --memory-limit or load it with a smaller --dtype',
      );
    }
    const fits = () => this.bytes + this.reserved + bytes <= limit;
    for (const engine of this.engines.filter((candidate) => this.isIdle(candidate))) {
      if (fits()) {
        break;
      }
      this.engines = this.engines.filter((other) => other !== engine);
      engine.close();
    }
    return fits() || this.busy.size === 0;
  }

  private mark(engine: Engine): Engine {
    this.busy.add(engine);
    this.engines = [...this.engines.filter((other) => other !== engine), engine];
    return engine;
  }

  private free(engine: Engine): void {
    this.busy.delete(engine);
    this.wake();
  }

  /** An engine that ended while it drew is started again, so that the next job need not wait for it. */
  private remove(engine: Engine): void {
    const crashed = this.engines.includes(engine) && this.busy.delete(engine);
    this.engines = this.engines.filter((other) => other !== engine);
    this.wake();
    if (crashed && !this.closed) {
      this.load(engine.model.name).catch(() => undefined);
    }
  }

  private wake(): void {
    const { waiting } = this;
    this.waiting = [];
    this.changes++;
    for (const resolve of waiting) {
      resolve();
    }
  }
}

/** About what a model takes: its weights as they are in the files, or as the type that they are loaded as. */
async function expectedBytes({ source, settings }: ModelSource): Promise<number> {
  const bytes = await weightBytes(source);
  return PROCESS_BYTES + (settings.dtype === 'float32' || settings.dtype === undefined ? bytes : bytes / 2);
}

async function weightBytes(source: string): Promise<number> {
  const kind = statSync(source, { throwIfNoEntry: false });
  if (!kind?.isDirectory()) {
    return kind?.size ?? 0;
  }
  const entries = await readdir(source, { recursive: true, withFileTypes: true });
  const files = entries.filter(
    (entry) => entry.name.endsWith('.safetensors') && !/\.(fp16|non_ema)\./.test(entry.name),
  );
  const sizes = await Promise.all(files.map(async (file) => (await stat(join(file.parentPath, file.name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}
