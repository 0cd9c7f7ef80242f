import cors from '@fastify/cors';
import multipart from '@fastify/multipart';
import swagger from '@fastify/swagger';
import Fastify, { type FastifyInstance } from 'fastify';
import { RequestError } from '../errors.js';
import { a1111Routes } from './a1111_routes.js';
import type { ServerContext } from './context.js';
import { healthRoutes, type Metrics } from './health_routes.js';
import { jobsRoutes } from './jobs_routes.js';
import { openaiRoutes } from './openai_routes.js';
import { pageRoutes } from './page_routes.js';
import { type SecurityOptions, secure } from './security.js';

export interface AppOptions extends SecurityOptions {
  /** Of the package. */
  version: string;
  /** Milliseconds in which a request's headers must have come, and the whole of it. */
  headersTimeout?: number;
  requestTimeout?: number;
}

const HEADERS_TIMEOUT = 15_000;
const REQUEST_TIMEOUT = 120_000;
const MAX_CONNECTIONS = 10_000;

/** All routes, without a port yet. */
export async function createApp(
  context: ServerContext,
  metrics: Metrics,
  options: AppOptions,
): Promise<FastifyInstance> {
  const { headersTimeout = HEADERS_TIMEOUT, requestTimeout = REQUEST_TIMEOUT, version } = options;
  const checks = Math.min(1000, headersTimeout / 4);
  const app: FastifyInstance = Fastify({
    bodyLimit: context.limits.bodyBytes,
    requestTimeout,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 300 },
    http: { headersTimeout, requestTimeout, connectionsCheckingInterval: checks },
  });
  app.server.maxConnections = MAX_CONNECTIONS;
  secure(app, options);
  app.decorateRequest('uploads');
  handleErrors(app, context);
  if (options.corsOrigins.length > 0) {
    await app.register(cors, { origin: [...options.corsOrigins] });
  }
  await app.register(multipart);
  await app.register(swagger, { openapi: { openapi: '3.1.0', info: { title: 'tfjs-diffusers', version } } });
  await app.register(async (scope) => jobsRoutes(scope, context));
  await app.register(async (scope) => openaiRoutes(scope, context), { prefix: '/v1' });
  await app.register(async (scope) => a1111Routes(scope, context), { prefix: '/sdapi/v1' });
  await app.register(async (scope) => healthRoutes(scope, context, metrics));
  await app.register(pageRoutes);
  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger());
  return app;
}

function handleErrors(app: FastifyInstance, { note }: ServerContext): void {
  app.setErrorHandler((error: Error & { statusCode?: number; code?: string }, request, reply) => {
    const status = error instanceof RequestError ? error.status : (error.statusCode ?? 500);
    note(`${request.method} ${request.url.split('?', 1)[0]}: ${error.message}`);
    if (status === 401) {
      reply.header('www-authenticate', 'Bearer, Basic realm="tfjs-diffusers"');
    }
    // what went wrong inside is for the one who runs the server
    const message =
      status < 500 || error instanceof RequestError ? error.message : 'the server failed; its log says why';
    reply.code(status).send({ error: { type: error.name, code: error.code ?? null, message } });
  });
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0]!.slice(0, 100);
    const message = `there is no ${request.method} ${path}; GET /openapi.json lists what there is`;
    reply.code(404).send({ error: { type: 'NotFound', code: 'not_found', message } });
  });
}
