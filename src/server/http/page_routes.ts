import { readFile } from 'node:fs/promises';
import type { FastifyInstance } from 'fastify';

/** Beside the sources, in the package as well: the page needs no build. */
const PAGE = new URL('../../../src/server/page/index.html', import.meta.url);
/** The page loads nothing from anywhere else, and nobody may put it into a frame. */
const POLICY =
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' blob: data:; " +
  "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/** The page to draw with, at /. */
export async function pageRoutes(app: FastifyInstance): Promise<void> {
  const page = await readFile(PAGE);
  app.get('/', { schema: { hide: true } }, async (_, reply) => {
    reply.header('content-type', 'text/html; charset=utf-8').header('content-security-policy', POLICY);
    reply.header('cache-control', 'no-cache').header('x-content-type-options', 'nosniff');
    return page;
  });
  app.get('/favicon.ico', { schema: { hide: true } }, async (_, reply) => reply.code(204).send());
}
