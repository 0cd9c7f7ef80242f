import type { FastifyRequest } from 'fastify';
import type { Catalog } from '../engine/catalog.js';
import { RequestError } from '../errors.js';
import type { JobQueue, JobView, Owner } from '../jobs/job.js';
import type { DrawRequest } from '../request/draw_request.js';
import { checkLimits, type Limits } from '../request/limits.js';
import { takeLoraTags } from '../request/lora_tags.js';
import { checkSampler } from '../request/samplers.js';

/** What all routes work with. */
export interface ServerContext {
  queue: JobQueue;
  catalog: Catalog;
  limits: Limits;
  /** The model of requests that name none. */
  model: { current: string | undefined };
  /** Whether clients show keys, and see only their own jobs. */
  hasKeys: boolean;
  note: (message: string) => void;
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Whose jobs the request adds. */
    owner: Owner;
  }
}

/** Names under which OpenAI's clients ask for whatever model there is. */
const ALIASES: ReadonlySet<string> = new Set([
  'gpt-image-1',
  'gpt-image-1-mini',
  'gpt-image-1.5',
  'gpt-image-2',
  'chatgpt-image-latest',
  'dall-e-2',
  'dall-e-3',
  'default',
  '',
]);

/** The model that a client means; undefined for the first one. */
export function meantModel({ model }: ServerContext, name: string | undefined): string | undefined {
  return name === undefined || ALIASES.has(name) ? model.current : name;
}

/**
 * Adds a job.
 *
 * @throws RequestError for what is beyond the limits, UnknownModelError, QueueFullError
 */
export async function addJob(context: ServerContext, request: DrawRequest, owner: Owner): Promise<JobView> {
  checkLimits(request, context.limits);
  checkSampler(request.lenient ? { sampler: request.sampler } : request);
  return context.queue.add({ ...takeLoraTags(request), model: meantModel(context, request.model) }, owner);
}

/** The job, if the one who asks may see it. @throws RequestError of status 404 */
export async function ownJob(
  { queue, hasKeys }: ServerContext,
  id: string,
  { owner }: FastifyRequest,
): Promise<JobView> {
  const found = await queue.get(id);
  if (!found || (hasKeys && found.owner !== owner)) {
    throw new RequestError(`there is no job '${id}', or it is no longer kept`, 404, 'job_not_found');
  }
  return found.job;
}
