import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import * as errors from '../../errors.js';
import { EngineCrashError, type ErrorReport, RequestError } from '../errors.js';
import type { DrawRequest } from '../request/draw_request.js';
import type { Capabilities } from './capabilities.js';
import type { LoadSettings } from './loaded_model.js';
import type { Ask, DrawProgress, FromEngine, Picture, Preview, ToEngine } from './messages.js';

const ENGINE_FILE = fileURLToPath(new URL('./engine_process.js', import.meta.url));
/** Characters of what an engine printed that an error may show. */
const MAX_PRINTED = 2000;

/** Who watches a job, and ends it. */
export interface DrawWatch {
  signal: AbortSignal;
  onProgress?: (progress: DrawProgress) => void;
  onPreview?: (preview: Preview) => void;
  /** Handed a function by which the job can be asked for more. */
  onStart?: (ask: (what: Ask) => void) => void;
}

interface Pending {
  watch: DrawWatch;
  resolve: (pictures: Picture[]) => void;
  reject: (error: Error) => void;
}

/** A model's files and how they are loaded. */
export interface ModelSource {
  name: string;
  /** A directory, a file, or the id of a repository on the hub. */
  source: string;
  settings: LoadSettings;
  loras: Readonly<Record<string, string>>;
}

/**
 * A process of its own that draws with one model: whatever happens in native code, the server goes on, and its memory goes
 * back to the system when it ends.
 */
export class Engine {
  /** Bytes of memory that it took when it was last asked. */
  bytes = 0;
  capabilities: Capabilities | undefined;
  private readonly pending = new Map<number, Pending>();
  private readonly child: ChildProcess;
  private loading: { resolve: () => void; reject: (error: Error) => void } | undefined;
  private printed = '';
  private next = 0;
  private ended: string | undefined;

  private constructor(
    readonly model: ModelSource,
    threads: number | undefined,
    private readonly onEnd: (engine: Engine) => void,
  ) {
    const env = { ...process.env, ...(threads === undefined ? {} : { OMP_NUM_THREADS: String(threads) }) };
    const stdio = ['ignore', 'ignore', 'pipe', 'ipc'] as const;
    this.child = fork(ENGINE_FILE, [], { serialization: 'advanced', env, stdio: [...stdio], execArgv: [] });
    this.child.stderr?.on('data', (data: Buffer) => this.print(String(data)));
    this.child.on('message', (message) => this.take(message as FromEngine));
    this.child.on('error', (error) => this.end(error.message));
    this.child.on('exit', (code, signal) => this.end(signal ? `by ${signal}` : `with exit code ${code}`));
  }

  /**
   * Starts a process and loads the model.
   *
   * @param threads of the native engine; as many as there are processors where it is left out
   * @param onEnd called once when the process has ended
   */
  static async start(
    model: ModelSource,
    threads: number | undefined,
    onEnd: (engine: Engine) => void,
  ): Promise<Engine> {
    const engine = new Engine(model, threads, onEnd);
    try {
      await engine.load();
      return engine;
    } catch (error) {
      engine.close();
      throw error;
    }
  }

  get idle(): boolean {
    return this.pending.size === 0;
  }

  get alive(): boolean {
    return this.ended === undefined;
  }

  get pid(): number | undefined {
    return this.child.pid;
  }

  private load(): Promise<void> {
    const { name, source, settings, loras } = this.model;
    return new Promise((resolve, reject) => {
      this.loading = { resolve, reject };
      this.say({ type: 'load', model: source, name, settings, loras });
    });
  }

  /**
   * Draws a request.
   *
   * @throws AbortedError through the signal, EngineCrashError when the process ends meanwhile, and what drawing throws
   */
  draw(request: DrawRequest, watch: DrawWatch): Promise<Picture[]> {
    const id = this.next++;
    const { signal } = watch;
    const cancel = () => this.say({ type: 'cancel', id });
    signal.addEventListener('abort', cancel, { once: true });
    const result = new Promise<Picture[]>((resolve, reject) => {
      this.pending.set(id, { watch, resolve, reject });
      if (this.ended !== undefined) {
        this.end(this.ended);
        return;
      }
      this.say({ type: 'draw', id, request });
      watch.onStart?.((what) => this.say({ type: 'ask', id, what }));
      if (signal.aborted) {
        cancel();
      }
    });
    return result.finally(() => signal.removeEventListener('abort', cancel));
  }

  /** Ends the process at once; a job that it draws fails. */
  close(): void {
    this.child.kill('SIGKILL');
  }

  private say(message: ToEngine): void {
    if (this.child.connected) {
      this.child.send(message, () => undefined);
    }
  }

  private print(text: string): void {
    this.printed = (this.printed + text).slice(-MAX_PRINTED);
    process.stderr.write(text.replace(/^(?=.)/gm, `[${this.model.name}] `));
  }

  private take(message: FromEngine): void {
    if ('bytes' in message) {
      this.bytes = message.bytes;
    }
    switch (message.type) {
      case 'loaded':
        this.capabilities = message.capabilities;
        this.loading?.resolve();
        break;
      case 'load-failed':
        this.loading?.reject(errorFrom(message.error));
        break;
      default:
        this.tell(message);
    }
  }

  private tell(message: Exclude<FromEngine, { type: 'loaded' | 'load-failed' }>): void {
    const job = this.pending.get(message.id);
    if (message.type === 'progress') {
      job?.watch.onProgress?.(message.progress);
    } else if (message.type === 'preview') {
      job?.watch.onPreview?.(message.preview);
    } else {
      this.pending.delete(message.id);
      if (message.type === 'done') {
        job?.resolve(message.pictures);
      } else {
        job?.reject(errorFrom(message.error));
      }
    }
  }

  private end(how: string): void {
    const first = this.ended === undefined;
    this.ended = how;
    const said = this.printed.trim() ? `; it had printed: ${this.printed.trim().split('\n').at(-1)}` : '';
    const advice = how === 'by SIGKILL' ? ', as the system does when memory runs out' : '';
    const error = new EngineCrashError(
      `the process that draws with '${this.model.name}' ended ${how}${advice}${said}; it is started again for the next job`,
    );
    this.loading?.reject(error);
    for (const { reject } of this.pending.values()) {
      reject(error);
    }
    this.pending.clear();
    if (first) {
      this.onEnd(this);
    }
  }
}

/** The error that a report tells of, of its class where it is one of the library's. */
export function errorFrom({ type, message }: ErrorReport): Error {
  if (type === 'RequestError') {
    return new RequestError(message);
  }
  const known = (errors as Record<string, unknown>)[type] as (new (message: string) => Error) | undefined;
  const error = known ? new known(message) : new Error(message);
  error.name = type;
  return error;
}
