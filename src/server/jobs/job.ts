import type { Ask, DrawProgress, Picture, Preview } from '../engine/messages.js';
import type { ErrorReport } from '../errors.js';
import type { DrawRequest } from '../request/draw_request.js';

export const JOB_STATES = ['queued', 'generating', 'completed', 'failed', 'cancelled'] as const;
export type JobState = (typeof JOB_STATES)[number];

export const hasEnded = (state: JobState): boolean => state !== 'queued' && state !== 'generating';

/** A picture of a finished job, without its bytes. */
export interface PictureInfo {
  seed: number;
  width: number;
  height: number;
  format: Picture['format'];
  parameters: string;
}

/** A job as clients see it. Times are milliseconds since 1970. */
export interface JobView {
  id: string;
  state: JobState;
  model: string;
  prompt: string;
  /** Jobs before it; only while it waits. */
  position?: number;
  /** Seconds until it is done, by the speed of jobs before it; undefined before the first one. */
  expected_seconds?: number;
  created: number;
  started?: number;
  finished?: number;
  progress?: DrawProgress;
  error?: ErrorReport;
  pictures?: PictureInfo[];
}

export type JobEvent = { type: 'state' | 'progress'; job: JobView } | { type: 'preview'; preview: Preview };

/** Whose a job is: an API key by its hash, or an address where there are no keys. */
export type Owner = string;

export interface QueueCounts {
  queued: number;
  generating: number;
}

/** Where jobs wait and are drawn: in this process, or in Redis. */
export interface JobQueue {
  /** @throws QueueFullError, UnknownModelError */
  add(request: DrawRequest, owner: Owner): Promise<JobView>;
  get(id: string): Promise<{ job: JobView; owner: Owner } | undefined>;
  /** Jobs that wait or are drawn, in their order. */
  list(): Promise<{ job: JobView; owner: Owner }[]>;
  counts(): Promise<QueueCounts>;
  /** False when there is no such job or it has ended. */
  cancel(id: string): Promise<boolean>;
  /** Asks a job that is drawn for a picture on the way, or for an end; false when it is not drawn. */
  ask(id: string, what: Ask): Promise<boolean>;
  /** Pictures of a completed job as long as they are kept. */
  pictures(id: string): Promise<Picture[] | undefined>;
  /** Calls `listener` with what happens to a job; the returned function ends it. */
  subscribe(id: string, listener: (event: JobEvent) => void): () => void;
  close(): Promise<void>;
}

/** What of a picture is told before its bytes are asked for. */
export function infoOf({ seed, width, height, format, parameters }: Picture): PictureInfo {
  return { seed, width, height, format, parameters };
}
