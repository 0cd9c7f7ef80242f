import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { RequestError } from '../errors.js';

export interface SecurityOptions {
  /** The address that the server listens at. */
  host: string;
  /** Without any, everybody who reaches the server may draw. */
  apiKeys: readonly string[];
  /** Names of this server beside its addresses. */
  allowedHosts: readonly string[];
  /** Origins of pages that may ask: 'https://example.org'. */
  corsOrigins: readonly string[];
}

/** Answered to everybody: what a page, a load balancer and a browser need before anybody can show a key. */
const OPEN: ReadonlySet<string> = new Set(['/', '/healthz', '/favicon.ico']);
const LOOPBACK: readonly string[] = ['localhost', '127.0.0.1', '[::1]'];

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\./.test(host);
}

/** Host of 'host:port' and '[::1]:port'. */
const withoutPort = (host: string): string => host.replace(/:\d+$/, '').toLowerCase();

/** The keys that a request shows: a bearer token, `x-api-key`, or the password of Basic, as the web UI's clients send it. */
function shownKeys({ headers }: FastifyRequest): string[] {
  const { authorization = '' } = headers;
  const [scheme = '', value = ''] = authorization.split(/\s+/, 2);
  const own = [headers['x-api-key'] ?? []].flat();
  if (scheme.toLowerCase() === 'basic') {
    const text = Buffer.from(value, 'base64').toString();
    const password = text.slice(text.indexOf(':') + 1);
    return [...own, password, text];
  }
  return scheme.toLowerCase() === 'bearer' ? [...own, value] : own;
}

/**
 * Refuses, before a body is read, requests that name another host (DNS rebinding), that pages of other origins send, and
 * those without a key where there are keys. What remains knows its owner.
 */
export function secure(app: FastifyInstance, options: SecurityOptions): void {
  const keys = options.apiKeys.map(digest);
  app.decorateRequest('owner', '');
  app.addHook('onRequest', async (request) => {
    checkHost(request, options);
    checkOrigin(request, options);
    const path = request.url.split('?', 1)[0]!;
    request.owner = ownerOf(request, keys, OPEN.has(path) || request.method === 'OPTIONS');
  });
}

function checkHost({ headers }: FastifyRequest, { host, allowedHosts }: SecurityOptions): void {
  const named = withoutPort(headers.host ?? '');
  const known = [...LOOPBACK, ...allowedHosts.map((name) => name.toLowerCase())];
  // a page can give any name to this machine's address, but not the address itself
  const isAddress = isIP(named.replace(/^\[|\]$/g, '')) > 0 || named === hostname().toLowerCase();
  if (!known.includes(named) && (isLoopback(host) || !isAddress)) {
    const message = `this server is not '${named.slice(0, 100)}'; start it with --allowed-host to serve under that name`;
    throw new RequestError(message, 403, 'foreign_host');
  }
}

function checkOrigin({ headers }: FastifyRequest, { corsOrigins }: SecurityOptions): void {
  const { origin, host } = headers;
  const own = origin === `http://${host}` || origin === `https://${host}`;
  const fromElsewhere = headers['sec-fetch-site'] === 'cross-site' && headers['sec-fetch-mode'] !== 'navigate';
  const foreign = origin === undefined ? fromElsewhere : !own;
  if (foreign && !corsOrigins.includes(origin ?? '')) {
    const message = `pages of '${String(origin).slice(0, 100)}' may not use this server; start it with --cors-origin to allow them`;
    throw new RequestError(message, 403, 'foreign_origin');
  }
}

function ownerOf(request: FastifyRequest, keys: readonly Buffer[], isOpen: boolean): string {
  if (keys.length === 0) {
    return request.ip;
  }
  const shown = shownKeys(request).map(digest);
  // every comparison is made, so that its time tells nothing
  const found = keys.filter((key) => shown.filter((candidate) => timingSafeEqual(key, candidate)).length > 0);
  if (found.length === 0 && !isOpen) {
    throw new RequestError('this server needs an API key: Authorization: Bearer KEY', 401, 'invalid_api_key');
  }
  return found[0]?.toString('hex').slice(0, 16) ?? 'nobody';
}
