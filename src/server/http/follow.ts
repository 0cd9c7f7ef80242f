import type { ServerResponse } from 'node:http';
import type { FastifyReply } from 'fastify';
import type { Picture, Preview } from '../engine/messages.js';
import { failureStatus, RequestError } from '../errors.js';
import { hasEnded, type JobEvent, type JobQueue, type JobView } from '../jobs/job.js';

/**
 * Waits for a job's end.
 *
 * @param listener told of what happens meanwhile
 */
export function followJob(
  queue: JobQueue,
  id: string,
  listener: (event: JobEvent) => void = () => undefined,
): Promise<JobView> {
  return new Promise((resolve, reject) => {
    const finish = (job: JobView) => {
      stop();
      resolve(job);
    };
    const stop = queue.subscribe(id, (event) => {
      listener(event);
      if (event.type === 'state' && hasEnded(event.job.state)) {
        finish(event.job);
      }
    });
    // it may have ended before anyone listened
    queue.get(id).then((found) => {
      if (!found || hasEnded(found.job.state)) {
        finish(found?.job ?? { id, state: 'cancelled', model: '', prompt: '', created: 0 });
      }
    }, reject);
  });
}

/** Cancels a job when the connection is closed before the job has been answered. */
export function cancelOnClose(queue: JobQueue, id: string, response: ServerResponse): void {
  const leave = () => {
    if (!response.writableFinished) {
      queue.cancel(id).catch(() => undefined);
    }
  };
  response.on('close', leave);
  if (response.destroyed) {
    leave();
  }
}

/**
 * The pictures of a job when it has ended.
 *
 * @throws RequestError with the status that tells a client whose fault a failure was
 */
export async function picturesOf(queue: JobQueue, job: JobView): Promise<Picture[]> {
  if (job.state === 'failed') {
    const { type, message } = job.error!;
    throw new RequestError(message, failureStatus(job.error!), type);
  }
  const pictures = job.state === 'completed' ? await queue.pictures(job.id) : undefined;
  if (!pictures) {
    throw new RequestError('the job was cancelled', 499, 'cancelled');
  }
  return pictures;
}

/** Bytes that may wait for a slow client before previews are left out. */
const MAX_WAITING = 8 * 2 ** 20;
/** Milliseconds between signs of life. */
const HEARTBEAT = 15_000;

/** An answer as server-sent events. */
export class EventStream {
  private readonly timer: NodeJS.Timeout;
  private readonly response: ServerResponse;

  constructor(reply: FastifyReply) {
    reply.hijack();
    this.response = reply.raw;
    const headers = {
      ...reply.getHeaders(),
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    };
    this.response.writeHead(200, headers as Record<string, string>);
    this.response.flushHeaders();
    this.timer = setInterval(() => this.response.write(': still here\n\n'), HEARTBEAT);
    this.response.on('close', () => clearInterval(this.timer));
  }

  send(event: string, data: object): void {
    if (!this.response.writableEnded && !this.response.destroyed) {
      this.response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
    }
  }

  /** Sends what may be left out for clients that read too slowly. */
  sendPreview(event: string, data: object): void {
    if (this.response.writableLength < MAX_WAITING) {
      this.send(event, data);
    }
  }

  end(): void {
    clearInterval(this.timer);
    this.response.end();
  }
}

export const base64 = ({ bytes }: Picture | Preview): string => Buffer.from(bytes).toString('base64');
