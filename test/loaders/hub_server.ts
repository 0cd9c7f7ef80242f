import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

export interface Repository {
  files: Map<string, Buffer>;
  /** Commit by branch or tag. */
  refs: Record<string, string>;
  /** Token that reading needs. */
  token?: string;
  gated?: boolean;
}

export const COMMIT = '1234567890abcdef1234567890abcdef12345678';

/** The files under a directory by their path in it. */
export function filesOf(dir: string): Map<string, Buffer> {
  const paths = readdirSync(dir, { recursive: true }) as string[];
  const files = paths.filter((path) => statSync(join(dir, path)).isFile()).sort();
  return new Map(files.map((path) => [path, readFileSync(join(dir, path))]));
}

const isLfs = (path: string): boolean => /\.(safetensors|bin|ckpt)$/.test(path);
export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
const gitHash = (bytes: Buffer): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
export const etagOf = (path: string, bytes: Buffer): string => (isLfs(path) ? sha256(bytes) : gitHash(bytes));

function listen(handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<Server> {
  const server = createServer(handler);
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

const urlOf = (server: Server, host: string): string => `http://${host}:${(server.address() as AddressInfo).port}`;

/**
 * Plays the hub's part in a download: revision, tree and resolve, large files behind a redirect to a second server of
 * another name, which must not see the token.
 */
export class HubServer {
  readonly repositories = new Map<string, Repository>();
  /** 'METHOD path' of each request, those of the second server as 'CDN path'. */
  requests: string[] = [];
  /** Authorization header by request, as in `requests`. */
  authorization = new Map<string, string | undefined>();
  /** Called before a large file is sent; may answer in the server's stead and then gives true. */
  intercept?: (path: string, bytes: Buffer, request: IncomingMessage, response: ServerResponse) => boolean;
  /** Called before a question about the repository is answered; may answer instead and then gives true. */
  interceptApi?: (url: URL, response: ServerResponse) => boolean;
  /** Status of every answer instead of the right one. */
  failWith?: number;
  /** Files per page of the tree. */
  pageSize = 1000;

  private constructor(
    private readonly hub: Server,
    private readonly cdn: Server,
  ) {
    this.url = urlOf(hub, '127.0.0.1');
  }

  static async start(): Promise<HubServer> {
    let self: HubServer;
    const hub = await listen((request, response) => self.answer(request, response));
    const cdn = await listen((request, response) => self.answerCdn(request, response));
    self = new HubServer(hub, cdn);
    return self;
  }

  readonly url: string;

  async stop(): Promise<void> {
    for (const server of [this.hub, this.cdn]) {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    }
  }

  /** Requests for contents, not for listings. */
  blobRequests(): string[] {
    return this.requests.filter((line) => line.includes('/resolve/') || line.startsWith('CDN'));
  }

  private log(line: string, request: IncomingMessage): void {
    this.requests.push(line);
    this.authorization.set(line, request.headers.authorization);
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url!, this.url);
    const path = decodeURIComponent(url.pathname);
    this.log(`${request.method} ${path}`, request);
    if (this.failWith) {
      response.writeHead(this.failWith).end();
      return;
    }
    if (path.startsWith('/api/') && this.interceptApi?.(url, response)) {
      return;
    }
    const [, id, kind, rest] =
      path.match(/^\/api\/models\/(.+?)\/(revision|tree)\/(.+)$/) ?? path.match(/^\/(.+?)\/(resolve)\/(.+)$/) ?? [];
    const repository = id === undefined ? undefined : this.repositories.get(id);
    const fail = (status: number, code: string, message: string): void => {
      response.writeHead(status, { 'X-Error-Code': code, 'X-Error-Message': message }).end();
    };
    if (!repository) {
      fail(401, 'RepoNotFound', 'Repository not found');
    } else if (repository.token && request.headers.authorization !== `Bearer ${repository.token}`) {
      repository.gated
        ? fail(403, 'GatedRepo', 'Access to this model is restricted')
        : fail(401, 'RepoNotFound', 'Repository not found');
    } else if (kind === 'revision') {
      const sha = repository.refs[rest!] ?? (Object.values(repository.refs).includes(rest!) ? rest : undefined);
      sha ? this.json(response, { _id: '1', id, sha }) : fail(404, 'RevisionNotFound', `Invalid rev id: ${rest}`);
    } else if (kind === 'tree') {
      this.tree(repository, url, response);
    } else {
      this.resolve(repository, rest!.slice(rest!.indexOf('/') + 1), request, response);
    }
  }

  private json(response: ServerResponse, value: unknown, headers: Record<string, string> = {}): void {
    response.writeHead(200, { 'Content-Type': 'application/json', ...headers }).end(JSON.stringify(value));
  }

  private tree(repository: Repository, url: URL, response: ServerResponse): void {
    const start = Number(url.searchParams.get('cursor') ?? 0);
    const entries = [...repository.files].map(([path, bytes]) => ({
      type: 'file',
      path,
      size: bytes.length,
      oid: gitHash(bytes),
      ...(isLfs(path) && { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } }),
    }));
    const end = start + this.pageSize;
    url.searchParams.set('cursor', String(end));
    const more = end < entries.length ? { Link: `<${url.href}>; rel="next"` } : undefined;
    this.json(response, [{ type: 'directory', path: 'unet', size: 0, oid: '0' }, ...entries.slice(start, end)], more);
  }

  private resolve(repository: Repository, path: string, request: IncomingMessage, response: ServerResponse): void {
    const bytes = repository.files.get(path);
    if (!bytes) {
      response.writeHead(404, { 'X-Error-Code': 'EntryNotFound' }).end();
    } else if (isLfs(path)) {
      const location = `${urlOf(this.cdn, 'localhost')}/${sha256(bytes)}/${path}`;
      response
        .writeHead(302, { Location: location, 'X-Linked-ETag': `"${sha256(bytes)}"`, 'X-Linked-Size': bytes.length })
        .end();
    } else {
      this.send(bytes, gitHash(bytes), request, response);
    }
  }

  private answerCdn(request: IncomingMessage, response: ServerResponse): void {
    const path = decodeURIComponent(request.url!);
    this.log(`CDN ${path}`, request);
    const [, hash, file] = path.match(/^\/(\w+)\/(.+)$/)!;
    const all = [...this.repositories.values()].flatMap(({ files }) => [...files.values()]);
    const bytes = all.find((candidate) => sha256(candidate) === hash)!;
    if (!this.intercept?.(file!, bytes, request, response)) {
      this.send(bytes, hash!, request, response);
    }
  }

  private send(bytes: Buffer, etag: string, request: IncomingMessage, response: ServerResponse): void {
    const isCurrent = (request.headers['if-range'] ?? `"${etag}"`) === `"${etag}"`;
    const range = isCurrent && request.headers.range?.match(/^bytes=(\d+)-(\d+)$/);
    const [start, end] = range ? [Number(range[1]), Number(range[2]) + 1] : [0, bytes.length];
    response.writeHead(range ? 206 : 200, {
      ETag: `"${etag}"`,
      'X-Repo-Commit': COMMIT,
      'Content-Length': end - start,
      ...(range && { 'Content-Range': `bytes ${start}-${end - 1}/${bytes.length}` }),
    });
    response.end(bytes.subarray(start, end));
  }
}
