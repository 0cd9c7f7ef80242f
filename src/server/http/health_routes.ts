import type { FastifyInstance } from 'fastify';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { JobView } from '../jobs/job.js';
import type { ServerContext } from './context.js';

/** What Prometheus reads. */
export class Metrics {
  readonly registry = new Registry();
  private readonly jobs: Counter;
  private readonly pictures: Counter;
  private readonly seconds: Histogram;

  constructor() {
    const registers = [this.registry];
    collectDefaultMetrics({ register: this.registry });
    const name = (text: string) => `tfjs_diffusers_${text}`;
    const labelNames = ['model'];
    this.jobs = new Counter({
      name: name('jobs_total'),
      help: 'Jobs that ended',
      labelNames: ['model', 'state'],
      registers,
    });
    this.pictures = new Counter({ name: name('pictures_total'), help: 'Pictures drawn', labelNames, registers });
    const buckets = [0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800];
    this.seconds = new Histogram({
      name: name('job_seconds'),
      help: 'Seconds that completed jobs were drawn',
      ...{ labelNames, buckets, registers },
    });
  }

  /** A job has ended after it was drawn for some seconds. */
  ended({ model, state, pictures }: JobView, seconds: number): void {
    this.jobs.inc({ model, state });
    if (state === 'completed') {
      this.pictures.inc({ model }, pictures?.length ?? 0);
      this.seconds.observe({ model }, seconds);
    }
  }

  /** Numbers that are asked for when Prometheus asks. */
  watch(name: string, help: string, read: () => Promise<number> | number): void {
    const registers = [this.registry];
    new Gauge({
      name: `tfjs_diffusers_${name}`,
      ...{ help, registers },
      async collect() {
        this.set(await read());
      },
    });
  }
}

/** /healthz says whether the server answers and its queue is there; /metrics is for Prometheus. */
export function healthRoutes(app: FastifyInstance, { queue }: ServerContext, metrics: Metrics): void {
  metrics.watch('jobs_queued', 'Jobs that wait', async () => (await queue.counts()).queued);
  metrics.watch('jobs_generating', 'Jobs that are drawn', async () => (await queue.counts()).generating);
  const schema = { tags: ['server'], summary: 'Whether the server answers' };
  app.get('/healthz', { schema }, async (_, reply) => {
    const counts = await queue.counts().catch((error: Error) => error);
    return counts instanceof Error
      ? reply.code(503).send({ status: 'unavailable', error: counts.message })
      : { status: 'ok', ...counts };
  });
  app.get('/metrics', { schema: { tags: ['server'], summary: 'Numbers for Prometheus' } }, async (_, reply) => {
    reply.header('content-type', metrics.registry.contentType);
    return metrics.registry.metrics();
  });
}
