import { randomUUID } from 'node:crypto';
import type { DrawWatch } from '../engine/engine.js';
import type { Ask, Picture } from '../engine/messages.js';
import { QueueFullError, reportOf } from '../errors.js';
import type { DrawRequest } from '../request/draw_request.js';
import type { Limits } from '../request/limits.js';
import { ExpectedTime } from './expected_time.js';
import { FairClock } from './fairness.js';
import { hasEnded, infoOf, type JobEvent, type JobQueue, type JobView, type Owner } from './job.js';

/** Who draws: the pool of engines. */
export interface Drawer {
  find(model: string | undefined): { name: string };
  draw(request: DrawRequest, watch: DrawWatch): Promise<Picture[]>;
}

interface Job {
  view: JobView;
  owner: Owner;
  request: DrawRequest | undefined;
  place: number;
  controller: AbortController;
  ask: ((what: Ask) => void) | undefined;
  pictures: Picture[];
  listeners: Set<(event: JobEvent) => void>;
}

export type QueueLimits = Pick<Limits, 'queue' | 'resultSeconds' | 'resultBytes'>;

const bytesOf = ({ pictures }: Job): number => pictures.reduce((sum, { bytes }) => sum + bytes.length, 0);
/** Jobs that are remembered after they ended, however small. */
const MAX_ENDED = 5000;
const secondsSince = (time: number): number => (Date.now() - time) / 1000;

/** Jobs of this process: they wait in a fair order, as many as there are workers are drawn at a time. */
export class LocalQueue implements JobQueue {
  private readonly jobs = new Map<string, Job>();
  /** In the order in which they will be drawn. */
  private waiting: Job[] = [];
  private readonly running = new Set<Job>();
  private readonly clock = new FairClock();
  private readonly times = new ExpectedTime();
  private readonly sweeper: NodeJS.Timeout;

  /** @param onEnd told of every job that has ended, with the seconds that it was drawn */
  constructor(
    private readonly drawer: Drawer,
    private readonly workers: number,
    private readonly limits: QueueLimits,
    private readonly onEnd: (view: JobView, seconds: number) => void = () => undefined,
  ) {
    this.sweeper = setInterval(() => this.sweep(), Math.max(100, Math.min(10_000, limits.resultSeconds * 250)));
    this.sweeper.unref();
  }

  async add(request: DrawRequest, owner: Owner): Promise<JobView> {
    const { name: model } = this.drawer.find(request.model);
    if (this.waiting.length >= this.limits.queue) {
      throw new QueueFullError(this.limits.queue);
    }
    const id = randomUUID();
    const job: Job = {
      view: { id, state: 'queued', model, prompt: request.prompt, created: Date.now() },
      ...{ owner, request: { ...request, model }, place: this.clock.place(owner, request.priority) },
      ...{ controller: new AbortController(), ask: undefined, pictures: [], listeners: new Set() },
    };
    this.jobs.set(id, job);
    const next = this.waiting.findIndex(({ place }) => place > job.place);
    this.waiting.splice(next < 0 ? this.waiting.length : next, 0, job);
    this.startNext();
    return this.viewOf(job);
  }

  async get(id: string): Promise<{ job: JobView; owner: Owner } | undefined> {
    const job = this.jobs.get(id);
    return job && { job: this.viewOf(job), owner: job.owner };
  }

  async list(): Promise<{ job: JobView; owner: Owner }[]> {
    return [...this.running, ...this.waiting].map((job) => ({ job: this.viewOf(job), owner: job.owner }));
  }

  async counts(): Promise<{ queued: number; generating: number }> {
    return { queued: this.waiting.length, generating: this.running.size };
  }

  async cancel(id: string): Promise<boolean> {
    const job = this.jobs.get(id);
    if (!job || hasEnded(job.view.state)) {
      return false;
    }
    this.waiting = this.waiting.filter((other) => other !== job);
    // the engine obeys after its step; who asked need not wait for it
    this.end(job, { state: 'cancelled' });
    job.controller.abort();
    return true;
  }

  async ask(id: string, what: Ask): Promise<boolean> {
    const job = this.jobs.get(id);
    job?.ask?.(what);
    return job?.ask !== undefined;
  }

  async pictures(id: string): Promise<Picture[] | undefined> {
    const job = this.jobs.get(id);
    return job?.view.state === 'completed' ? job.pictures : undefined;
  }

  subscribe(id: string, listener: (event: JobEvent) => void): () => void {
    const listeners = this.jobs.get(id)?.listeners;
    listeners?.add(listener);
    return () => listeners?.delete(listener);
  }

  async close(): Promise<void> {
    clearInterval(this.sweeper);
    for (const job of [...this.waiting, ...this.running]) {
      await this.cancel(job.view.id);
    }
  }

  private startNext(): void {
    while (this.running.size < this.workers && this.waiting.length > 0) {
      const job = this.waiting.shift()!;
      this.running.add(job);
      this.clock.begin(job.place);
      void this.run(job).finally(() => {
        this.running.delete(job);
        this.startNext();
      });
    }
    if (this.waiting.length === 0) {
      this.clock.reset();
    }
  }

  private async run(job: Job): Promise<void> {
    const request = job.request!;
    job.view = { ...job.view, state: 'generating', started: Date.now() };
    this.tell(job, 'state');
    try {
      const pictures = await this.drawer.draw(request, this.watch(job));
      if (!hasEnded(job.view.state)) {
        job.pictures = pictures;
        this.times.learn(job.view.model, request, secondsSince(job.view.started!));
        this.end(job, { state: 'completed', pictures: pictures.map(infoOf) });
      }
    } catch (error) {
      if (!hasEnded(job.view.state)) {
        this.end(job, { state: 'failed', error: reportOf(error) });
      }
    }
  }

  private watch(job: Job): DrawWatch {
    return {
      signal: job.controller.signal,
      onStart: (ask) => {
        job.ask = ask;
      },
      onProgress: (progress) => {
        job.view = { ...job.view, progress };
        this.tell(job, 'progress');
      },
      onPreview: (preview) => this.send(job, { type: 'preview', preview }),
    };
  }

  private end(job: Job, changes: Partial<JobView>): void {
    job.view = { ...job.view, ...changes, finished: Date.now() };
    // uploaded pictures are not kept
    job.request = undefined;
    job.ask = undefined;
    this.tell(job, 'state');
    job.listeners.clear();
    this.onEnd(job.view, job.view.started === undefined ? 0 : secondsSince(job.view.started));
    this.sweep();
  }

  private tell(job: Job, type: 'state' | 'progress'): void {
    if (!hasEnded(job.view.state) || type === 'state') {
      this.send(job, { type, job: this.viewOf(job) });
    }
  }

  private send(job: Job, event: JobEvent): void {
    for (const listener of [...job.listeners]) {
      listener(event);
    }
  }

  private viewOf(job: Job): JobView {
    if (hasEnded(job.view.state)) {
      return job.view;
    }
    const position = this.waiting.indexOf(job);
    return {
      ...job.view,
      ...(position >= 0 ? { position } : {}),
      expected_seconds: this.expected(job, position),
    };
  }

  /** Seconds until a job is done: its own and those of the jobs before it, which the workers share. */
  private expected(job: Job, position: number): number | undefined {
    const left = (other: Job): number | undefined => {
      const seconds = other.request && this.times.of(other.view.model, other.request);
      const drawn = other.view.started === undefined ? 0 : secondsSince(other.view.started);
      return seconds === undefined ? undefined : Math.max(0, seconds - drawn);
    };
    const before = position < 0 ? [] : [...this.running, ...this.waiting.slice(0, position)];
    const own = left(job);
    return own === undefined
      ? undefined
      : own + before.reduce((sum, other) => sum + (left(other) ?? own), 0) / this.workers;
  }

  /** Forgets results that are too old or, the oldest first, take too much memory. */
  private sweep(): void {
    const { resultSeconds, resultBytes } = this.limits;
    const ended = [...this.jobs.values()]
      .filter(({ view }) => hasEnded(view.state))
      .sort((a, b) => a.view.finished! - b.view.finished!);
    let bytes = ended.reduce((sum, job) => sum + bytesOf(job), 0);
    for (const [i, job] of ended.entries()) {
      const left = ended.length - i;
      const tooMuch = left > MAX_ENDED || (bytes > resultBytes && left > 1);
      if (tooMuch || secondsSince(job.view.finished!) > resultSeconds) {
        bytes -= bytesOf(job);
        this.jobs.delete(job.view.id);
      }
    }
  }
}
