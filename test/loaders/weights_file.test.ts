import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { CheckpointError, DownloadError, InvalidArgumentError } from '../../src/errors.js';
import { findWeightsFile } from '../../src/loaders/hub/weights_file.js';
import { COMMIT, HubServer } from './hub_server.js';

const VARIABLES = ['HF_HOME', 'HF_ENDPOINT', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE', 'HF_TOKEN'] as const;
const saved = VARIABLES.map((name) => [name, process.env[name]] as const);
let home: string;
let server: HubServer;

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'weights-'));
  server = await HubServer.start();
  for (const name of VARIABLES) {
    delete process.env[name];
  }
  process.env.HF_HOME = join(home, 'cache');
  process.env.HF_ENDPOINT = server.url;
});

afterEach(async () => {
  for (const [name, value] of saved) {
    delete process.env[name];
    if (value !== undefined) {
      process.env[name] = value;
    }
  }
  await server.stop();
  await rm(home, { recursive: true });
});

function serve(id: string, ...names: string[]): void {
  const files = new Map(names.map((name) => [name, Buffer.from(`bytes of ${name}`)]));
  server.repositories.set(id, { files, refs: { main: COMMIT, v2: COMMIT } });
}

const content = async (path: string) => (await readFile(path)).toString();

test('the only file of a repository, the preferred one, or the one that is named', async () => {
  serve('acme/one', 'style.safetensors', 'README.md', 'style.bin');
  serve('acme/two', 'a.safetensors', 'b.safetensors', 'sub/c.safetensors');
  expect(await content(await findWeightsFile('acme/one'))).toBe('bytes of style.safetensors');
  expect(await content(await findWeightsFile('acme/two', {}, 'b.safetensors'))).toBe('bytes of b.safetensors');
  expect(await content(await findWeightsFile('acme/two', { weightName: 'a.safetensors' }))).toBe(
    'bytes of a.safetensors',
  );
  expect(await content(await findWeightsFile('acme/two', { subfolder: 'sub' }))).toBe('bytes of sub/c.safetensors');
  await expect(findWeightsFile('acme/two')).rejects.toThrow(/several files of weights; name one as weightName: a.saf/);
  await expect(findWeightsFile('acme/two', { weightName: 'd.safetensors' })).rejects.toThrow(
    /has no file 'd.safetensors'; it holds/,
  );
});

test('an address on the hub, with a branch; offline it is found in the cache', async () => {
  serve('acme/two', 'a.safetensors', 'sub/c.safetensors');
  const address = 'https://huggingface.co/acme/two/blob/v2/sub/c.safetensors';
  const path = await findWeightsFile(address);
  expect(await content(path)).toBe('bytes of sub/c.safetensors');
  process.env.HF_HUB_OFFLINE = '1';
  expect(await findWeightsFile(address)).toBe(path);
  expect(await findWeightsFile('hf.co/acme/two/resolve/v2/sub/c.safetensors')).toBe(path);
  await expect(findWeightsFile('https://huggingface.co/acme/two/blob/v2/a.safetensors')).rejects.toThrow(DownloadError);
});

test('pickles and what is no file are refused', async () => {
  serve('acme/old', 'model.ckpt');
  await expect(findWeightsFile('acme/old')).rejects.toThrow(CheckpointError);
  await expect(findWeightsFile('https://huggingface.co/acme/old/blob/main/model.ckpt')).rejects.toThrow(
    /Python pickle/,
  );
  await expect(findWeightsFile('https://example.com/a.safetensors')).rejects.toThrow(/there is no file 'https:/);
  await expect(findWeightsFile(home)).rejects.toThrow(/has no .safetensors file/);
  await writeFile(join(home, 'a.safetensors'), 'a');
  await writeFile(join(home, 'b.safetensors'), 'b');
  await expect(findWeightsFile(home)).rejects.toThrow(InvalidArgumentError);
  expect(await findWeightsFile(home, { weightName: 'b.safetensors' })).toBe(join(home, 'b.safetensors'));
  expect(await findWeightsFile(join(home, 'a.safetensors'))).toBe(join(home, 'a.safetensors'));
});
