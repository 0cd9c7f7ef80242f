// Answers of a hub that lies, breaks off, repeats itself and goes on without end: what enters the cache has the hash that
// was listed, nothing lies outside the cache, and a call ends.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { resolvePretrained } from '../../../dist/index.js';

const COMMIT = '1234567890abcdef1234567890abcdef12345678';
/** More than the largest honest repository of a trial, and than any answer. */
const MAX_CACHE_BYTES = 4e6;
const STATUSES = [200, 204, 206, 301, 302, 307, 400, 401, 403, 404, 408, 416, 429, 500, 502, 503, 599];
const PATHS = [
  '../out.json',
  '/etc/out.json',
  'a/../../out.json',
  'unet',
  '',
  '.',
  'C:\\x',
  'a\0b',
  `${'d/'.repeat(200)}x.json`,
];

const hash = (kind, ...parts) => {
  const sum = createHash(kind);
  for (const part of parts) {
    sum.update(part);
  }
  return sum.digest('hex');
};
const gitHash = (bytes) => hash('sha1', `blob ${bytes.length}\0`, bytes);

function repository(random) {
  const json = (value) => Buffer.from(JSON.stringify(value));
  const files = {
    'model_index.json': json({ _class_name: 'StableDiffusionPipeline', unet: ['diffusers', 'UNet2DConditionModel'] }),
    'unet/config.json': json({ _class_name: 'UNet2DConditionModel', sample_size: 8 }),
    'unet/diffusion_pytorch_model.safetensors': Buffer.from(random.bytes(random.integer(0, 20_000))),
  };
  return new Map(Object.entries(files));
}

const listing = (files) =>
  [...files].map(([path, bytes]) => {
    const lfs = { oid: hash('sha256', bytes), size: bytes.length, pointerSize: 134 };
    return { type: 'file', path, size: bytes.length, oid: gitHash(bytes), ...(/safetensors/.test(path) && { lfs }) };
  });

/** What the hub answers to a request when it is honest: status, headers, body. */
function honest({ files, url }, request) {
  const path = decodeURIComponent(new URL(request.url, url).pathname);
  if (path.includes('/revision/')) {
    return { status: 200, headers: {}, body: Buffer.from(JSON.stringify({ _id: '1', id: 'a/b', sha: COMMIT })) };
  }
  if (path.includes('/tree/')) {
    return { status: 200, headers: {}, body: Buffer.from(JSON.stringify(listing(files))) };
  }
  const bytes = files.get(path.split(`/${COMMIT}/`)[1]) ?? Buffer.alloc(0);
  const [, from] = /^bytes=(\d+)-/.exec(request.headers.range ?? '') ?? [];
  const range = from && { 'Content-Range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` };
  return { status: from ? 206 : 200, headers: { ...range }, body: bytes.subarray(Number(from ?? 0)) };
}

function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

/** One entry of the listing, or of another answer in JSON, made worse. */
function lie(random, body) {
  const json = parsed(body);
  if (typeof json !== 'object') {
    return body;
  }
  if (Array.isArray(json) && random.chance(0.5)) {
    const entry = random.of(json);
    const [name, value] = random.of([
      ['path', random.of(PATHS)],
      ['size', random.number()],
      ['oid', random.of(['', '../x', 'f'.repeat(40), random.text(40)])],
      ['lfs', random.value()],
      ['type', random.value()],
    ]);
    entry[name] = value;
    return Buffer.from(JSON.stringify(json));
  }
  return Buffer.from(JSON.stringify(random.damageJson(json)));
}

/** The ways in which an answer is made worse. */
const LIES = {
  json: (random, answer) => ({ ...answer, body: lie(random, answer.body) }),
  bytes: (random, answer) => ({ ...answer, body: Buffer.from(random.damage(answer.body)) }),
  more: (random, answer) => ({ ...answer, body: Buffer.concat([answer.body, Buffer.alloc(random.integer(1, 1e5))]) }),
  status: (random, answer) => ({ ...answer, status: random.of(STATUSES) }),
  broken: (random, answer) => ({ ...answer, breaksOff: random.chance(0.5) }),
  gzip: (random, answer) => ({
    ...answer,
    headers: { ...answer.headers, 'Content-Encoding': random.of(['gzip', 'br', 'x']) },
    body: random.chance(0.5) ? gzipSync(Buffer.alloc(random.integer(0, 5e6))) : answer.body,
  }),
  pages: (_, answer, { url }) => ({
    ...answer,
    headers: { Link: `<${url}/api/models/a/b/tree/x?cursor=1>; rel="next"` },
  }),
  header: (random, answer) => ({
    ...answer,
    headers: {
      ...answer.headers,
      [random.of(['ETag', 'Content-Range', 'X-Linked-Size', 'X-Linked-ETag', 'X-Error-Code', 'Link'])]: random.of([
        '""',
        '"../../x"',
        'bytes 5-1/0',
        'bytes */x',
        '-1',
        '1e99',
        '<file:///etc/passwd>; rel="next"',
        'x'.repeat(5000),
      ]),
    },
  }),
  redirect: (random, answer, { url }) => ({
    ...answer,
    status: 302,
    headers: { Location: random.of([`${url}/loop`, 'file:///etc/passwd', 'http://', '', '/../..', 'data:,x']) },
  }),
};

function send(response, { status, headers, body, breaksOff }) {
  response.writeHead(status, headers);
  if (status === 204) {
    response.end();
  } else if (breaksOff) {
    response.write(body.subarray(0, body.length / 2), () => response.destroy());
  } else {
    response.end(body);
  }
}

/** Waits between attempts are not what is tried here. */
function hurry() {
  const { setTimeout: wait } = globalThis;
  globalThis.setTimeout = (f, milliseconds, ...more) => wait(f, milliseconds / 100, ...more);
}

export async function setUp() {
  hurry();
  const root = mkdtempSync(join(tmpdir(), 'tfjs-diffusers-fuzz-'));
  const state = { root, home: join(root, 'home') };
  const server = createServer((request, response) => {
    let answer = honest(state, request);
    for (const name of state.lies(request)) {
      answer = LIES[name](state.random, answer, state);
    }
    send(response, answer);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  state.url = `http://127.0.0.1:${server.address().port}`;
  Object.assign(process.env, { HF_HOME: state.home, HF_ENDPOINT: state.url, HF_HUB_DOWNLOAD_TIMEOUT: '5' });
  state.tearDown = () => {
    server.close();
    server.closeAllConnections();
    rmSync(root, { recursive: true, force: true });
  };
  return state;
}

const filesUnder = (dir) =>
  existsSync(dir)
    ? readdirSync(dir, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name))
    : [];

/** @throws Error for a cache that holds what it must not */
function checkCache({ root, home }) {
  const strays = readdirSync(root).filter((name) => join(root, name) !== home);
  if (strays.length > 0) {
    throw new Error(`files outside the cache: ${strays.join(', ')}`);
  }
  const files = filesUnder(home);
  const size = files.reduce((sum, path) => sum + statSync(path).size, 0);
  if (size > MAX_CACHE_BYTES) {
    throw new Error(`the cache holds ${size} bytes`);
  }
  for (const path of files.filter((file) => basename(dirname(file)) === 'blobs' && !file.endsWith('.incomplete'))) {
    const bytes = readFileSync(path);
    if (![gitHash(bytes), hash('sha256', bytes)].includes(basename(path))) {
      throw new Error(`the cache holds other bytes under the name ${basename(path)}`);
    }
  }
}

export async function trial(random, state) {
  if (random.chance(0.7)) {
    rmSync(state.home, { recursive: true, force: true });
  }
  mkdirSync(state.home, { recursive: true });
  const kinds = Object.keys(LIES);
  const chosen = random.list(random.integer(1, 2), () => random.of(kinds));
  const share = random.of([0.2, 0.5, 1]);
  Object.assign(state, { random, files: repository(random), lies: () => (random.chance(share) ? chosen : []) });
  try {
    await resolvePretrained('acme/model', { cacheDir: join(state.home, 'hub') });
  } finally {
    checkCache(state);
  }
}
