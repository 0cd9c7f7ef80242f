import { type ChildProcess, spawn } from 'node:child_process';
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, truncate, utimes, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { AbortedError, DownloadError, InvalidArgumentError } from '../../src/errors.js';
import { type DownloadProgress, resolvePretrained } from '../../src/loaders/hub/hub.js';
import { hubCacheDir } from '../../src/platform/node/hub_environment.js';
import { setWarningHandler } from '../../src/utils/logging.js';
import { COMMIT, etagOf, filesOf, HubServer, type Repository } from './hub_server.js';

const ID = 'acme/tiny-shapes';
const checkpoint = filesOf('weights/tiny-shapes');
const wanted = [...checkpoint.keys()].filter((path) => path !== 'README.md');
const UNET = 'unet/diffusion_pytorch_model.safetensors';
const VARIABLES = [
  ...['HF_HOME', 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'XDG_CACHE_HOME', 'HF_ENDPOINT', 'HF_TOKEN'],
  'HF_HUB_DOWNLOAD_TIMEOUT',
  ...['HF_TOKEN_PATH', 'HUGGING_FACE_HUB_TOKEN', 'HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE'],
];

let home: string;
let server: HubServer;
let repository: Repository;
let warnings: string[];
const saved = { ...process.env };

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'hub-'));
  server = await HubServer.start();
  repository = {
    files: new Map([...checkpoint, ['unet/flax_model.msgpack', Buffer.alloc(9)]]),
    refs: { main: COMMIT },
  };
  server.repositories.set(ID, repository);
  for (const name of VARIABLES) {
    delete process.env[name];
  }
  process.env.HF_HOME = home;
  process.env.HF_ENDPOINT = `${server.url}/`;
  warnings = [];
  setWarningHandler((message) => warnings.push(message));
});

afterEach(async () => {
  setWarningHandler(null);
  for (const name of VARIABLES) {
    delete process.env[name];
    if (saved[name] !== undefined) {
      process.env[name] = saved[name];
    }
  }
  await server.stop();
  await rm(home, { recursive: true });
});

/** An address where nobody answers. */
async function deadUrl(): Promise<string> {
  const other = await HubServer.start();
  await other.stop();
  return other.url;
}

const root = (): string => join(home, 'hub', 'models--acme--tiny-shapes');

async function filesUnder(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true });
  const stats = await Promise.all(entries.map((entry) => lstat(join(dir, entry))));
  return entries.filter((_, i) => !stats[i]!.isDirectory()).sort();
}

const leftovers = async (): Promise<string[]> =>
  (await filesUnder(home)).filter((file) => file.includes('incomplete') || file.endsWith('.tmp'));

async function expectWhole(dir: string, paths = wanted): Promise<void> {
  expect(await filesUnder(dir)).toEqual([...paths].sort());
  for (const path of paths) {
    expect((await readFile(join(dir, path))).equals(repository.files.get(path)!)).toBe(true);
  }
  expect(await leftovers()).toEqual([]);
}

/** The same after a program was killed, whose last temporary file stays for a day. */
async function expectWholeAfterKill(): Promise<void> {
  const { dir } = await resolvePretrained(ID);
  await Promise.all((await leftovers()).filter((path) => path.endsWith('.tmp')).map((path) => rm(join(home, path))));
  await expectWhole(dir);
}

describe('resolvePretrained', () => {
  test('a directory on this machine is taken as it is', async () => {
    expect(await resolvePretrained('weights/tiny-shapes')).toEqual({ dir: 'weights/tiny-shapes' });
    expect(server.requests).toEqual([]);
  });

  test('the first call downloads into the layout of the shared cache', async () => {
    const { dir } = await resolvePretrained(ID);
    expect(dir).toBe(join(root(), 'snapshots', COMMIT));
    await expectWhole(dir);
    expect(await readFile(join(root(), 'refs', 'main'), 'utf8')).toBe(COMMIT);
    const link = await readlink(join(dir, UNET));
    expect(link).toBe(join('..', '..', '..', 'blobs', etagOf(UNET, checkpoint.get(UNET)!)));
    expect(server.blobRequests().filter((line) => line.startsWith('CDN'))).toHaveLength(3);
    expect(warnings).toEqual([]);
  });

  test('the second call asks for no content, a damaged file is downloaded again', async () => {
    const { dir } = await resolvePretrained(ID);
    server.requests = [];
    expect(await resolvePretrained(ID)).toEqual({ dir });
    expect(server.blobRequests()).toEqual([]);
    await truncate(join(dir, UNET), 1000);
    await resolvePretrained(ID);
    expect(server.blobRequests()).toHaveLength(2);
    await expectWhole(dir);
  });

  test('a blob that another snapshot brought is linked, not downloaded', async () => {
    await resolvePretrained(ID);
    const next = COMMIT.replace('1234', 'aaaa');
    repository.refs = { main: next, old: COMMIT };
    repository.files.set('model_index.json', Buffer.from(`${checkpoint.get('model_index.json')}\n`));
    server.requests = [];
    const { dir } = await resolvePretrained(ID);
    expect(dir).toBe(join(root(), 'snapshots', next));
    expect(server.blobRequests()).toEqual([`GET /${ID}/resolve/${next}/model_index.json`]);
    await expectWhole(dir);
  });

  test('a revision may be a branch, a tag with slashes or a commit', async () => {
    const other = COMMIT.replace('1234', 'bbbb');
    repository.refs['refs/pr/1'] = other;
    expect((await resolvePretrained(ID, { revision: 'refs/pr/1' })).dir).toBe(join(root(), 'snapshots', other));
    expect(await readFile(join(root(), 'refs', 'refs', 'pr', '1'), 'utf8')).toBe(other);
    expect((await resolvePretrained(ID, { revision: COMMIT })).dir).toBe(join(root(), 'snapshots', COMMIT));
    expect(await filesUnder(join(root(), 'refs'))).toEqual([join('refs', 'pr', '1')]);
    for (const revision of ['refs/pr/1', COMMIT]) {
      await resolvePretrained(ID, { revision, localFilesOnly: true });
    }
    await expect(resolvePretrained(ID, { revision: 'v9' })).rejects.toThrow(`'${ID}' has no revision 'v9'`);
    await expect(resolvePretrained(ID, { revision: '../../x', localFilesOnly: true })).rejects.toThrow(DownloadError);
  });

  test('a listing of many pages', async () => {
    server.pageSize = 3;
    await expectWhole((await resolvePretrained(ID)).dir);
  });

  test('progress adds up to the bytes that were missing', async () => {
    const reports: DownloadProgress[] = [];
    await resolvePretrained(ID, { onProgress: (progress) => reports.push(progress) });
    const bytes = wanted.reduce((sum, path) => sum + checkpoint.get(path)!.length, 0);
    const last = reports.at(-1)!;
    expect([last.overallLoaded, last.overallTotal]).toEqual([bytes, bytes]);
    for (const path of wanted) {
      const own = reports.filter(({ file }) => file === path);
      expect(own.at(-1)).toMatchObject({ loaded: checkpoint.get(path)!.length, total: checkpoint.get(path)!.length });
    }
    for (let i = 1; i < reports.length; i++) {
      expect(reports[i]!.overallLoaded).toBeGreaterThan(reports[i - 1]!.overallLoaded);
    }
  });
});

describe('what is downloaded', () => {
  const small = (text: string): Buffer => Buffer.from(text);

  test('weights of the variant, with a warning where a component has none', async () => {
    repository.files.set('unet/diffusion_pytorch_model.fp16.safetensors', small('unet half'));
    repository.files.set('text_encoder/model.fp16.safetensors', small('text half'));
    const { dir } = await resolvePretrained(ID, { variant: 'fp16' });
    const weights = (await filesUnder(dir)).filter((path) => path.endsWith('.safetensors'));
    expect(weights).toEqual([
      'text_encoder/model.fp16.safetensors',
      'unet/diffusion_pytorch_model.fp16.safetensors',
      'vae/diffusion_pytorch_model.safetensors',
    ]);
    expect(warnings).toEqual([
      `${ID}: 'vae' has no weights of variant 'fp16'; taking diffusion_pytorch_model.safetensors`,
    ]);
  });

  test('shards with their index, no pickles, no other frameworks, no safety checker weights', async () => {
    const index = JSON.parse(String(checkpoint.get('model_index.json')));
    index.safety_checker = ['stable_diffusion', 'StableDiffusionSafetyChecker'];
    index.feature_extractor = ['transformers', 'CLIPImageProcessor'];
    repository.files.set('model_index.json', small(JSON.stringify(index)));
    repository.files.delete(UNET);
    const shards = ['00001', '00002'].map((n) => `unet/diffusion_pytorch_model-${n}-of-00002.safetensors`);
    const extra = [
      ...shards,
      'unet/diffusion_pytorch_model.safetensors.index.json',
      'feature_extractor/preprocessor_config.json',
      'safety_checker/config.json',
    ];
    const unwanted = [
      'v1-5-pruned.ckpt',
      'unet/diffusion_pytorch_model.bin',
      'unet/diffusion_pytorch_model.bin.index.json',
      'unet/diffusion_pytorch_model.non_ema.safetensors',
      'unet/model.onnx',
      'vae/diffusion_flax_model.msgpack',
      'safety_checker/model.safetensors',
      'text_encoder/pytorch_model.bin',
    ];
    for (const path of [...extra, ...unwanted]) {
      repository.files.set(path, small(path));
    }
    const { dir } = await resolvePretrained(ID);
    await expectWhole(dir, [...wanted.filter((path) => path !== UNET), ...extra]);
    await resolvePretrained(ID, { localFilesOnly: true });
    await rm(join(dir, shards[1]!));
    await expect(resolvePretrained(ID, { localFilesOnly: true })).rejects.toThrow('is not complete (missing: unet)');
  });

  test('only pickled weights are refused before anything large is fetched', async () => {
    repository.files.delete(UNET);
    repository.files.set('unet/diffusion_pytorch_model.bin', small('pickle'));
    await expect(resolvePretrained(ID)).rejects.toThrow(
      "the weights in 'unet' come only as diffusion_pytorch_model.bin",
    );
    expect(server.requests.filter((line) => line.startsWith('CDN'))).toEqual([]);
  });

  test('one subfolder, a model on its own, chosen patterns', async () => {
    const unet = [UNET, 'unet/config.json'];
    await expectWhole((await resolvePretrained(ID, { subfolder: 'unet' })).dir, unet);
    await resolvePretrained(ID, { subfolder: 'unet', localFilesOnly: true });
    await expect(resolvePretrained(ID, { subfolder: 'vae', localFilesOnly: true })).rejects.toThrow('missing: vae');
    await expect(resolvePretrained(ID, { subfolder: 'other' })).rejects.toThrow("in 'other'");

    const files = new Map([
      ['config.json', small('{}')],
      ['diffusion_pytorch_model.safetensors', small('weights')],
      ['README.md', small('')],
    ]);
    server.repositories.set('acme/vae', { files, refs: { main: COMMIT } });
    const { dir } = await resolvePretrained('acme/vae');
    expect(await filesUnder(dir)).toEqual(['config.json', 'diffusion_pytorch_model.safetensors']);
    await resolvePretrained('acme/vae', { localFilesOnly: true });

    const { dir: chosen } = await resolvePretrained('acme/vae', { allowPatterns: ['*.md'], cacheDir: join(home, 'x') });
    expect(await filesUnder(chosen)).toEqual(['README.md']);
    expect((await lstat(join(chosen, 'README.md'))).isSymbolicLink()).toBe(true);
    await expect(resolvePretrained('acme/vae', { allowPatterns: ['*.ckpt'] })).rejects.toThrow(
      'no file that matches *.ckpt',
    );
  });

  test('a repository of another kind', async () => {
    server.repositories.set('acme/ckpt', { files: new Map([['v1.ckpt', small('')]]), refs: { main: COMMIT } });
    await expect(resolvePretrained('acme/ckpt')).rejects.toThrow(
      "'acme/ckpt' has no model_index.json and no config.json: expected a repository in diffusers' layout, not a single checkpoint file; it holds v1.ckpt",
    );
  });

  test.each(['unet/../../../../evil.json', '/etc/evil.json', 'unet/..\\evil.json', 'C:/evil.json'])(
    'a file named %s is not written',
    async (path) => {
      repository.files.set(path, small('evil'));
      await expect(resolvePretrained(ID, { allowPatterns: ['*evil*'] })).rejects.toThrow('could lead out of the cache');
      expect((await filesUnder(home)).filter((file) => file.includes('evil'))).toEqual([]);
    },
  );
});

describe('environment', () => {
  test.each([
    ['HF_HUB_CACHE', 'cache', 'cache'],
    ['HUGGINGFACE_HUB_CACHE', 'cache', 'cache'],
    ['HF_HOME', 'home', join('home', 'hub')],
    ['XDG_CACHE_HOME', 'xdg', join('xdg', 'huggingface', 'hub')],
  ])('%s says where the cache is', async (name, value, expected) => {
    delete process.env.HF_HOME;
    process.env[name] = join(home, value);
    const { dir } = await resolvePretrained(ID, { subfolder: 'scheduler' });
    expect(dir).toBe(join(home, expected, 'models--acme--tiny-shapes', 'snapshots', COMMIT));
  });

  test('directories may start with ~, an empty variable counts as none', () => {
    expect(hubCacheDir({ HF_HOME: '~/hf' })).toBe(join(homedir(), 'hf', 'hub'));
    expect(hubCacheDir({ HF_HUB_CACHE: ' ', HF_HOME: '' })).toBe(join(homedir(), '.cache', 'huggingface', 'hub'));
  });

  test('HF_ENDPOINT must be an address', async () => {
    process.env.HF_ENDPOINT = 'hub.example';
    await expect(resolvePretrained(ID)).rejects.toThrow(
      'HF_ENDPOINT must be an address like https://huggingface.co, got',
    );
  });

  test('the token goes to the hub and to nobody else', async () => {
    repository.token = 'hf_secret';
    process.env.HF_TOKEN = 'hf_secret\n';
    await resolvePretrained(ID);
    expect(server.blobRequests().length).toBeGreaterThan(3);
    for (const [line, authorization] of server.authorization) {
      expect([line, authorization]).toEqual([line, line.startsWith('CDN') ? undefined : 'Bearer hf_secret']);
    }
  });

  test('the token may be an option, a stored file, or left out', async () => {
    repository.token = 'any-form';
    const scheduler = { subfolder: 'scheduler' };
    await resolvePretrained(ID, { ...scheduler, token: 'any-form' });
    await expect(resolvePretrained(ID, scheduler)).rejects.toThrow(DownloadError);
    await writeFile(join(home, 'token'), 'any-form\n');
    await resolvePretrained(ID, scheduler);
    process.env.HF_TOKEN_PATH = join(home, 'elsewhere');
    await expect(resolvePretrained(ID, scheduler)).rejects.toThrow(DownloadError);
    await writeFile(join(home, 'elsewhere'), 'any-form');
    await resolvePretrained(ID, scheduler);
    await expect(resolvePretrained(ID, { ...scheduler, token: false })).rejects.toThrow(DownloadError);
  });
});

describe('offline', () => {
  test.each([
    ['HF_HUB_OFFLINE', '1'],
    ['TRANSFORMERS_OFFLINE', 'true'],
    ['localFilesOnly', ''],
  ])('%s takes what the cache has and asks nobody', async (name, value) => {
    const { dir } = await resolvePretrained(ID);
    server.requests = [];
    const options = { localFilesOnly: value === '' };
    if (value) {
      process.env[name] = value;
    }
    expect(await resolvePretrained(ID, options)).toEqual({ dir });
    await expect(resolvePretrained('acme/other', options)).rejects.toThrow(DownloadError);
    await expect(resolvePretrained('acme/other', options)).rejects.toThrow(
      /the cache has no 'acme\/other' at revision 'main'.* looked in .*models--acme--other\. Run once with the network/,
    );
    expect(server.requests).toEqual([]);
  });

  test('a copy that lacks something is not taken', async () => {
    const { dir } = await resolvePretrained(ID);
    await rm(join(dir, 'vae'), { recursive: true });
    await rm(join(root(), 'blobs', etagOf(UNET, checkpoint.get(UNET)!)));
    await expect(resolvePretrained(ID, { localFilesOnly: true })).rejects.toThrow('(missing: vae, unet)');
  });

  test('without a connection the copy in the cache is taken with a warning', async () => {
    const { dir } = await resolvePretrained(ID);
    process.env.HF_ENDPOINT = await deadUrl();
    expect(await resolvePretrained(ID)).toEqual({ dir });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/^cannot reach http:\/\/127\.0\.0\.1:\d+ .*ECONNREFUSED.*Taking the copy in the cache/);
    server.failWith = 503;
    process.env.HF_ENDPOINT = server.url;
    expect(await resolvePretrained(ID)).toEqual({ dir });
  });
});

describe('failures', () => {
  test('no connection and nothing in the cache', async () => {
    process.env.HF_ENDPOINT = await deadUrl();
    await expect(resolvePretrained(ID)).rejects.toThrow(DownloadError);
    await expect(resolvePretrained(ID)).rejects.toThrow(/cannot reach .* check the network connection/);
    expect(await readdir(home)).toEqual([]);
  });

  test('no such repository, with and without a token', async () => {
    await expect(resolvePretrained('acme/typo')).rejects.toThrow(DownloadError);
    await expect(resolvePretrained('acme/typo')).rejects.toThrow(
      /there is no directory 'acme\/typo' on this machine and no repository .*check the spelling, or it is private: then pass \{token\}/,
    );
    await expect(resolvePretrained('acme/typo', { token: 'hf_x' })).rejects.toThrow(
      'the token that was sent has no access',
    );
    expect(await readdir(home)).toEqual([]);
  });

  test('a gated repository', async () => {
    repository.token = 'hf_right';
    repository.gated = true;
    await expect(resolvePretrained(ID)).rejects.toThrow(
      `accept its conditions at ${server.url}/${ID}, then pass {token}`,
    );
    await expect(resolvePretrained(ID, { token: 'hf_wrong' })).rejects.toThrow(
      'with the account of the token that was sent',
    );
  });

  test('what is no id is not asked for', async () => {
    for (const path of ['./none', '/none', '~/none', 'a/b/c', 'none/', 'C:\\none']) {
      await expect(resolvePretrained(path)).rejects.toThrow(`there is no directory '${path}' on this machine`);
    }
    for (const id of ['a b', 'a/..', '', 'a--b', 'http:x', 'x'.repeat(97)]) {
      await expect(resolvePretrained(id)).rejects.toThrow(InvalidArgumentError);
    }
    await expect(resolvePretrained('package.json')).rejects.toThrow("'package.json' is a file; expected the directory");
    expect(server.requests).toEqual([]);
  });

  test('an endpoint that is not the hub', async () => {
    repository.refs.main = '';
    await expect(resolvePretrained(ID)).rejects.toThrow(DownloadError);
    repository.refs.main = '../../evil';
    await expect(resolvePretrained(ID)).rejects.toThrow('could lead out of the cache');
  });

  test('a cache that cannot be written', async () => {
    await writeFile(join(home, 'hub'), 'a file');
    await expect(resolvePretrained(ID)).rejects.toThrow('choose another directory with {cacheDir} or HF_HUB_CACHE');
  });

  /** Sends part of a large file and then does as told. */
  const breakOff = (times: number, then: (destroy: () => void) => void): void => {
    server.intercept = (path, bytes, request, response) => {
      if (path !== UNET || times-- <= 0) {
        return false;
      }
      const start = Number(request.headers.range?.match(/=(\d+)/)?.[1] ?? 0);
      const length = bytes.length - start;
      response.writeHead(start ? 206 : 200, { 'Content-Length': length });
      response.write(bytes.subarray(start, start + Math.floor(length / 2)), () => then(() => response.destroy()));
      return true;
    };
  };

  test('a connection that breaks is taken up where it broke', async () => {
    breakOff(3, (destroy) => setTimeout(destroy, 20));
    await expectWhole((await resolvePretrained(ID)).dir);
    expect(server.requests.filter((line) => line.startsWith('CDN') && line.endsWith(UNET))).toHaveLength(4);
  });

  test('a file that keeps failing leaves nothing that could be taken for whole', async () => {
    server.intercept = (path, _bytes, _request, response) => {
      if (path === UNET) {
        response.writeHead(404).end();
      }
      return path === UNET;
    };
    await expect(resolvePretrained(ID)).rejects.toThrow(/localhost:\d+ did not give a file of 'acme.* \(HTTP 404\)/);
    expect(await leftovers()).toEqual([]);
    expect((await filesUnder(home)).filter((file) => file.includes('refs') || file.endsWith(UNET))).toEqual([]);
    await expect(resolvePretrained(ID, { localFilesOnly: true })).rejects.toThrow(DownloadError);
    server.intercept = undefined;
    await expectWhole((await resolvePretrained(ID)).dir);
  });

  test('a server that sends the whole file when asked for the rest is taken at its word', async () => {
    breakOff(1, (destroy) => {
      server.intercept = (path, bytes, _request, response) => {
        if (path === UNET) {
          response.writeHead(200).end(bytes);
        }
        return path === UNET;
      };
      setTimeout(destroy, 20);
    });
    await expectWhole((await resolvePretrained(ID)).dir);
  });
});

describe('what is not what it should be', () => {
  /** Answers for the large file by itself. */
  const serveUnet = (serve: (bytes: Buffer, request: IncomingMessage, response: ServerResponse) => void): void => {
    server.intercept = (path, bytes, request, response) => {
      if (path === UNET) {
        serve(bytes, request, response);
      }
      return path === UNET;
    };
  };
  const expectNothingKept = async (): Promise<void> => {
    expect(await leftovers()).toEqual([]);
    expect((await filesUnder(home)).filter((file) => file.endsWith('.lock') || file.endsWith(UNET))).toEqual([]);
    server.intercept = undefined;
    await expectWhole((await resolvePretrained(ID)).dir);
  };

  test('other bytes of the right number do not enter the cache', async () => {
    serveUnet((bytes, _, response) => response.writeHead(200).end(Buffer.alloc(bytes.length, 7)));
    await expect(resolvePretrained(ID)).rejects.toThrow(DownloadError);
    await expect(resolvePretrained(ID)).rejects.toThrow(`'${UNET}' did not arrive as the hub names it`);
    await expectNothingKept();
  });

  test('a small file with other bytes does not enter the cache', async () => {
    const path = 'unet/config.json';
    const right = repository.files.get(path)!;
    // the listing names the content that was, the server then sends another
    server.interceptApi = () => {
      setImmediate(() => repository.files.set(path, Buffer.alloc(right.length, 32)));
      repository.files.set(path, right);
      return false;
    };
    await expect(resolvePretrained(ID)).rejects.toThrow(`'${path}' did not arrive as the hub names it`);
    expect(await leftovers()).toEqual([]);
  });

  test('a body that goes on after its listed length is cut off', async () => {
    let sent = 0;
    serveUnet((bytes, _, response) => {
      response.writeHead(200);
      const more = (): void => {
        sent += bytes.length;
        if (!response.destroyed && sent < 40 * bytes.length) {
          response.write(bytes, () => setTimeout(more));
        }
      };
      more();
    });
    await expect(resolvePretrained(ID)).rejects.toThrow('goes on after the');
    expect(sent).toBeLessThan(40 * checkpoint.get(UNET)!.length);
    await expectNothingKept();
  });

  test('a gzip bomb is cut off', async () => {
    const bomb = gzipSync(Buffer.alloc(2 ** 28));
    serveUnet((_bytes, _request, response) => response.writeHead(200, { 'Content-Encoding': 'gzip' }).end(bomb));
    await expect(resolvePretrained(ID)).rejects.toThrow('goes on after the');
    await expectNothingKept();
    server.interceptApi = (_url, response) => {
      response.writeHead(200, { 'Content-Encoding': 'gzip' }).end(bomb);
      return true;
    };
    await expect(resolvePretrained('acme/other')).rejects.toThrow('gave an answer about');
  });

  test('an answer that does not end', async () => {
    server.interceptApi = (_url, response) => {
      response.writeHead(200, { 'Content-Type': 'application/json' });
      const more = (): void => {
        response.destroyed || response.write(Buffer.alloc(2 ** 20, 0x20), () => setImmediate(more));
      };
      more();
      return true;
    };
    await expect(resolvePretrained(ID)).rejects.toThrow('of more than 33554432 bytes');
  });

  test('a listing whose pages do not end', async () => {
    server.interceptApi = (url, response) => {
      if (!url.pathname.includes('/tree/')) {
        return false;
      }
      response.writeHead(200, { Link: `<${server.url}${url.pathname}?more=1>; rel="next"` }).end('[]');
      return true;
    };
    await expect(resolvePretrained(ID)).rejects.toThrow('goes on after 200 pages');
  });

  test('a drip of ten bytes for each connection', async () => {
    serveUnet((bytes, request, response) => {
      const start = Number(request.headers.range?.match(/=(\d+)/)?.[1] ?? 0);
      response.writeHead(start ? 206 : 200, { ETag: '"x"', 'Content-Range': `bytes ${start}-/*` });
      response.write(bytes.subarray(start, start + 10), () => setTimeout(() => response.destroy(), 5));
    });
    await expect(resolvePretrained(ID)).rejects.toThrow('the connection broke');
    expect(server.requests.filter((line) => line.startsWith('CDN') && line.endsWith(UNET))).toHaveLength(5);
    await expectNothingKept();
  });

  test('a connection on which nearly nothing arrives', async () => {
    process.env.HF_HUB_DOWNLOAD_TIMEOUT = '0.2';
    serveUnet((bytes, _, response) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write(bytes.subarray(0, 1)), 20);
      response.on('close', () => clearInterval(timer));
    });
    await expect(resolvePretrained(ID)).rejects.toThrow('nearly nothing arrived in 0.2 s');
    await expectNothingKept();
  });

  test('an answer whose decoder waits for what never comes', async () => {
    process.env.HF_HUB_DOWNLOAD_TIMEOUT = '0.2';
    const text = JSON.stringify({ _id: '1', id: 'a/b', sha: COMMIT });
    server.interceptApi = (_url, response) => {
      // not brotli at all, but fetch neither decodes it nor ends, not even when it is aborted
      response.writeHead(200, { 'Content-Encoding': 'br' });
      response.end(Buffer.concat([Buffer.from(text), Buffer.alloc(65_757)]));
      return true;
    };
    await expect(resolvePretrained(ID)).rejects.toThrow(/could not be downloaded/);
  });

  test('sizes and hashes that are none', async () => {
    for (const [size, oid] of [
      [-1, 'a'.repeat(40)],
      [1e30, 'a'.repeat(40)],
      [5, '../../evil'],
      [Number.MAX_SAFE_INTEGER, 'a'.repeat(40)],
    ]) {
      server.interceptApi = (url, response) => {
        if (!url.pathname.includes('/tree/')) {
          return false;
        }
        response.writeHead(200).end(JSON.stringify([{ type: 'file', path: 'config.json', size, oid }]));
        return true;
      };
      await expect(resolvePretrained(ID)).rejects.toThrow(/gives a file the size|by no hash|has room for/);
      expect((await filesUnder(home)).filter((file) => !file.endsWith('.json'))).toEqual([]);
    }
  });

  test('a damaged blob is noticed, said and fetched again', async () => {
    const { dir } = await resolvePretrained(ID);
    for (const path of [UNET, 'unet/config.json']) {
      const bytes = Buffer.from(repository.files.get(path)!);
      bytes[100]! ^= 1;
      await writeFile(join(dir, path), bytes);
    }
    server.requests = [];
    await expect(resolvePretrained(ID, { localFilesOnly: true })).rejects.toThrow(`${UNET}, which is damaged`);
    expect(warnings).toEqual([]);
    await expectWhole((await resolvePretrained(ID)).dir);
    expect(warnings).toEqual([
      expect.stringMatching(/blobs.* is damaged: its content is not what its name says; it is downloaded again/),
      expect.stringMatching(/blobs.* is damaged/),
    ]);
    expect(server.blobRequests()).toHaveLength(3);
  });

  test('a token with a line break is not sent and not shown', async () => {
    process.env.HF_TOKEN = 'hf_sec\nret';
    const error: Error = await resolvePretrained(ID).catch((e) => e);
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect(error.message).toContain('HF_TOKEN expects an access token');
    expect(`${error.message}${error.stack}`).not.toMatch(/hf_sec|ret\b/);
    expect(server.requests).toEqual([]);
  });
});

describe('tries again', () => {
  test.each(['revision', 'tree'])(
    'the question about the %s, after the wait that the server asks for',
    async (kind) => {
      let busy = 2;
      const times: number[] = [];
      server.interceptApi = (url, response) => {
        if (!url.pathname.includes(`/${kind}/`) || busy-- <= 0) {
          return false;
        }
        times.push(performance.now());
        response.writeHead(busy ? 429 : 503, { 'Retry-After': '1' }).end();
        return true;
      };
      await expectWhole((await resolvePretrained(ID)).dir);
      expect(times[1]! - times[0]!).toBeGreaterThan(900);
    },
  );

  test('not when the wait would be too long', async () => {
    server.interceptApi = (_url, response) => {
      response.writeHead(429, { 'Retry-After': '3600' }).end();
      return true;
    };
    await expect(resolvePretrained(ID)).rejects.toThrow('wait 3600 s');
    expect(server.requests).toHaveLength(1);
  });
});

describe('other programs', () => {
  const blob = (): string => join(root(), 'blobs', etagOf(UNET, checkpoint.get(UNET)!));
  const CHILD = `
    import { resolvePretrained } from '${pathToFileURL('dist/loaders/hub/hub.js')}';
    const { dir } = await resolvePretrained('${ID}', { onProgress: ({ file, loaded }) => console.log(file, loaded) });
    console.log('done', dir);`;

  /** A child process that downloads; gives what it prints, piece by piece, and a way to end it. */
  const startChild = (before = ''): { output: () => string; ended: Promise<number | null>; child: ChildProcess } => {
    const command = `${before} exec ${process.execPath} --input-type=module -e "$0"`;
    const child = spawn('bash', ['-c', command, CHILD], { env: { ...process.env, NODE_OPTIONS: '' } });
    let text = '';
    child.stdout!.on('data', (chunk) => (text += chunk));
    child.stderr!.on('data', (chunk) => (text += chunk));
    return { output: () => text, child, ended: new Promise((resolve) => child.on('close', (code) => resolve(code))) };
  };

  test('a download that was killed is continued', async () => {
    const half = Math.floor(checkpoint.get(UNET)!.length / 2);
    const ranges: (string | undefined)[] = [];
    let isFirst = true;
    server.intercept = (path, bytes, request, response) => {
      if (path !== UNET) {
        return false;
      }
      ranges.push(request.headers.range);
      if (isFirst) {
        isFirst = false;
        response.writeHead(200, { ETag: `"${etagOf(UNET, bytes)}"` });
        response.write(bytes.subarray(0, half));
        return true;
      }
      return false;
    };
    const { child, ended, output } = startChild();
    while (!output().includes(`${UNET} ${half}`)) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    child.kill('SIGKILL');
    await ended;
    expect(await filesUnder(join(root(), 'blobs'))).toContain(`${etagOf(UNET, checkpoint.get(UNET)!)}.tfjs.lock`);
    await expectWholeAfterKill();
    expect(ranges).toEqual([undefined, `bytes=${half}-${checkpoint.get(UNET)!.length - 1}`]);
    expect((await filesUnder(join(root(), 'blobs'))).filter((name) => name.includes('.'))).toEqual([]);
  });

  test.each([5, 50, 100, 150, 200, 300, 500])('killed after %d ms, nothing that is there is wrong', async (ms) => {
    const { child, ended } = startChild();
    setTimeout(() => child.kill('SIGKILL'), 300 + ms);
    await ended;
    for (const path of await filesUnder(home)) {
      const name = path.split('/').at(-1)!;
      if (path.includes('/snapshots/') && /\.(json|txt|safetensors)$/.test(name)) {
        const inside = path.split(`${COMMIT}/`)[1]!;
        expect((await readFile(join(home, path))).equals(repository.files.get(inside)!)).toBe(true);
      }
    }
    await expectWholeAfterKill();
  });

  test('content that changed at the server is not joined to the first half', async () => {
    await mkdir(join(root(), 'blobs'), { recursive: true });
    await writeFile(`${blob()}.tfjs.incomplete`, Buffer.alloc(1000, 9));
    await writeFile(`${blob()}.tfjs.validator.incomplete`, '"another"');
    await expectWhole((await resolvePretrained(ID)).dir);
  });

  test('two at a time download each file once', async () => {
    const [one, two] = [startChild(), startChild()];
    expect([await one.ended, await two.ended]).toEqual([0, 0]);
    expect(server.requests.filter((line) => line.startsWith('CDN') && line.endsWith(UNET))).toHaveLength(1);
    await expectWhole(join(root(), 'snapshots', COMMIT));
  });

  test('what was left for more than a day is removed, what is locked or of others is not', async () => {
    const old = new Date(Date.now() - 25 * 3600 * 1000);
    await mkdir(join(root(), 'blobs'), { recursive: true });
    const [gone, fresh] = ['a'.repeat(64), 'b'.repeat(64)].map((etag) =>
      join(root(), 'blobs', `${etag}.tfjs.incomplete`),
    );
    const python = join(root(), 'blobs', `${'c'.repeat(64)}.incomplete`);
    for (const path of [gone!, fresh!, python]) {
      await writeFile(path, 'x');
    }
    await utimes(gone!, old, old);
    await utimes(python, old, old);
    await resolvePretrained(ID);
    expect((await filesUnder(join(root(), 'blobs'))).filter((name) => name.endsWith('incomplete'))).toEqual(
      [fresh!, python].map((path) => path.slice(join(root(), 'blobs').length + 1)),
    );
  });

  test('a disk that is full is told, and leaves no half of a file', async () => {
    const { ended, output } = startChild('ulimit -f 3000;');
    expect(await ended).toBe(1);
    expect(output()).toContain('FileWriteError: the cache directory cannot be written');
    expect(await leftovers()).toEqual([]);
    await expectWhole((await resolvePretrained(ID)).dir);
  });
});

describe('AbortSignal', () => {
  test('stops in the middle of a file and leaves no part of it', async () => {
    const controller = new AbortController();
    server.intercept = (path, bytes, _request, response) => {
      if (path !== UNET) {
        return false;
      }
      response.writeHead(200, { 'Content-Length': bytes.length });
      response.write(bytes.subarray(0, 100_000));
      return true;
    };
    let seen = 0;
    const resolving = resolvePretrained(ID, {
      signal: controller.signal,
      onProgress: ({ file, loaded }) => {
        if (file === UNET && !seen) {
          seen = loaded;
          setTimeout(() => controller.abort(new Error('enough')), 20);
        }
      },
    });
    await expect(resolving).rejects.toThrow(AbortedError);
    await expect(resolving).rejects.toMatchObject({ cause: new Error('enough') });
    expect(seen).toBeGreaterThan(0);
    expect(await leftovers()).toEqual([]);
    expect((await filesUnder(home)).filter((file) => file.includes('refs') || file.endsWith(UNET))).toEqual([]);
    server.intercept = undefined;
    await expectWhole((await resolvePretrained(ID)).dir);
  });

  test('before the first request', async () => {
    await expect(resolvePretrained(ID, { signal: AbortSignal.abort() })).rejects.toThrow(AbortedError);
    expect(server.requests).toEqual([]);
    expect(await readdir(home)).toEqual([]);
  });

  test('while the listing is awaited', async () => {
    const controller = new AbortController();
    const resolving = resolvePretrained(ID, { signal: controller.signal });
    setTimeout(() => controller.abort(null));
    await expect(resolving).rejects.toThrow(AbortedError);
    expect(await leftovers()).toEqual([]);
  });

  test('an error of the progress callback stops the download and comes out', async () => {
    const onProgress = (): void => {
      throw new Error('callback');
    };
    await expect(resolvePretrained(ID, { onProgress })).rejects.toThrow('callback');
    expect(await leftovers()).toEqual([]);
  });
});
