import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { COMMIT, filesOf, HubServer } from '../loaders/hub_server.js';
import { pixelsOf, runCli, scratch } from './support.js';

let dir: string;
let remove: () => void;
let hub: HubServer;
let env: Record<string, string>;
beforeEach(async () => {
  ({ dir, remove } = scratch());
  hub = await HubServer.start();
  hub.repositories.set('acme/shapes', { files: filesOf('weights/tiny-shapes'), refs: { main: COMMIT } });
  env = { HF_ENDPOINT: hub.url, HF_HOME: join(dir, 'cache'), HF_HUB_OFFLINE: '', HF_TOKEN: '' };
});
afterEach(async () => {
  await hub.stop();
  remove();
});

const ARGS = ['a star', '--steps', '2', '--seed', '1', '--backend', 'wasm', '--json'];

test('a model of the hub is downloaded once and draws what its directory draws', async () => {
  const args = [...ARGS, '--model', 'acme/shapes', '--out'];
  const first = await runCli([...args, join(dir, 'first.png')], { env });
  expect(first.stderr).toMatch(/^downloading\ndownloaded 12 MB\nloaded shapes in /);
  expect(JSON.parse(first.stdout).timings.download).toBeGreaterThan(0);
  const again = await runCli([...args, join(dir, 'again.png')], { env: { ...env, HF_HUB_OFFLINE: '1' } });
  expect(JSON.parse(again.stdout).timings.download).toBe(0);
  const local = await runCli([...ARGS, '--out', join(dir, 'local.png')], { env });
  expect([first.code, again.code, local.code]).toEqual([0, 0, 0]);
  const [a, b, c] = await Promise.all(['first', 'again', 'local'].map((name) => pixelsOf(join(dir, `${name}.png`))));
  expect(a!.equals(c!) && b!.equals(c!)).toBe(true);
});

test('Ctrl-C stops a download and leaves no half of a file', async () => {
  let begun: () => void;
  const sending = new Promise<void>((resolve) => {
    begun = resolve;
  });
  // the server begins to send the first large file and then falls silent
  hub.intercept = (_, bytes, _request, response) => {
    response.writeHead(200, { 'Content-Length': bytes.length });
    response.write(bytes.subarray(0, 1000), () => begun());
    return true;
  };
  const { code, stdout, stderr } = await runCli([...ARGS, '--model', 'acme/shapes', '--out', join(dir, 'star.png')], {
    env,
    onStart: (child) => sending.then(() => child.kill('SIGINT')),
  });
  expect({ code, stdout }).toEqual({ code: 130, stdout: '' });
  expect(stderr).toMatch(/tfjs-diffusers: stopped\n$/);
  const left = (readdirSync(dir, { recursive: true }) as string[]).filter((path) =>
    /\.(png|tmp|safetensors)/.test(path),
  );
  expect(left).toEqual([]);
});
