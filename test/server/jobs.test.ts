import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import sharp from 'sharp';
import { drawnByCommandLine, eventually, pixelsOf, RunningServer, serverSentEvents } from './support.js';

const TINY = 'weights/tiny-shapes';

describe('jobs', () => {
  let server: RunningServer;
  let dir: string;

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'models-'));
    for (const name of ['first', 'second', 'third']) {
      cpSync(TINY, join(dir, name), { recursive: true });
    }
    // room for one engine and no other
    server = await RunningServer.start(
      '--models',
      dir,
      '--memory-limit',
      '0.35',
      '--max-queue',
      '6',
      '--max-steps',
      '80',
    );
  });
  afterAll(async () => {
    await server.stop();
    rmSync(dir, { recursive: true });
  });

  test('a job goes through its states, tells its progress, and gives the picture of the command line', async () => {
    const job = await server.add({ prompt: 'a blue heart', seed: 11, steps: 6, sampler: 'euler_a', previews: 2 });
    const events = [];
    for await (const event of serverSentEvents(await server.fetch(`/jobs/${job.id}/events`))) {
      events.push(event as { event: string; data: Record<string, unknown> });
    }
    expect(events.at(-1)!.data.state).toBe('completed');
    const steps = events
      .filter(({ event }) => event === 'progress')
      .map(({ data }) => (data.progress as { step: number }).step);
    expect(steps.at(-1)).toBe(6);
    expect(events.filter(({ event }) => event === 'preview')).toHaveLength(2);
    const { pictures } = await server.job(job.id);
    const picture = await server.fetch(pictures![0]!.url);
    const pixels = await pixelsOf(new Uint8Array(await picture.arrayBuffer()));
    expect(pixels).toEqual(
      await drawnByCommandLine('a blue heart', '--seed', '11', '--steps', '6', '--scheduler', 'euler_a'),
    );
  });

  test('a killed engine fails its job with a message, and the next job is drawn', async () => {
    const job = await server.add({ prompt: 'x', steps: 80 });
    await server.until(job.id, ({ progress }) => (progress?.step ?? 0) > 0);
    const [pid] = server.engines();
    process.kill(pid!, 'SIGKILL');
    const { state, error } = await server.ended(job.id);
    expect(state).toBe('failed');
    expect(error).toMatchObject({ type: 'EngineCrashError', message: expect.stringContaining('by SIGKILL') });
    const next = await server.ended((await server.add({ prompt: 'x', steps: 1 })).id);
    expect(next.state).toBe('completed');
    expect(server.engines()).not.toContain(pid);
  });

  test('models are loaded by name, the one used longest ago leaves, the memory goes back', async () => {
    for (const model of ['second', 'third', 'first']) {
      const job = await server.ended((await server.add({ prompt: 'x', model, steps: 1 })).id);
      expect([job.state, job.pictures?.[0]?.parameters]).toEqual([
        'completed',
        expect.stringContaining(`Model: ${model}`),
      ]);
      const { models } = await server.get<{ models: { name: string; loaded: boolean }[] }>('/capabilities');
      expect(models.filter(({ loaded }) => loaded).map(({ name }) => name)).toEqual([model]);
    }
    expect(
      await eventually(
        () => server.engines(),
        (pids) => pids.length === 1,
      ),
    ).toHaveLength(1);
  });

  test('places in the queue, cancelling, a full queue', async () => {
    const first = await server.add({ prompt: 'x', steps: 80 });
    await server.until(first.id, ({ state }) => state === 'generating');
    const waiting = [];
    for (let i = 0; i < 6; i++) {
      waiting.push(await server.add({ prompt: `waits ${i}`, steps: 80 }));
    }
    expect(waiting.map(({ position }) => position)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(waiting[5]!.expected_seconds).toBeGreaterThan(waiting[0]!.expected_seconds!);
    expect((await server.post('/jobs', { prompt: 'x' })).status).toBe(429);
    const urgent = await server.fetch(`/jobs/${waiting[0]!.id}`, { method: 'DELETE' });
    expect(((await urgent.json()) as { state: string }).state).toBe('cancelled');
    const high = await server.add({ prompt: 'high', steps: 1, priority: 'high' });
    expect(high.position).toBe(0);
    for (const { id } of [first, ...waiting.slice(1), high]) {
      await server.post(`/jobs/${id}/cancel`, '{}');
      expect((await server.job(id)).state).toBe('cancelled');
    }
  });

  test('healthz answers while a step is computed', async () => {
    const job = await server.add({ prompt: 'x', width: 512, height: 512, steps: 2 });
    await server.until(job.id, ({ state }) => state === 'generating');
    const begin = performance.now();
    expect((await server.fetch('/healthz')).status).toBe(200);
    expect((await server.job(job.id)).progress).toBeUndefined();
    expect(performance.now() - begin).toBeLessThan(5000);
    await server.post(`/jobs/${job.id}/cancel`, '{}');
  });

  test('OpenAPI describes the routes; tokens are counted', async () => {
    const { paths } = await server.get<{ paths: Record<string, unknown> }>('/openapi.json');
    expect(Object.keys(paths)).toEqual(
      expect.arrayContaining(['/jobs', '/v1/images/generations', '/sdapi/v1/txt2img']),
    );
    const tokens = await server.post('/tokens', { text: 'a red circle' });
    expect(await tokens.json()).toEqual({ tokens: 3 });
  });
});

describe('requests that are refused', () => {
  let server: RunningServer;
  const authorization = 'Bearer secret';

  beforeAll(async () => {
    server = await RunningServer.start('--api-key', 'secret', '--api-key', 'other');
  });
  afterAll(() => server.stop());

  const status = async (body: unknown, path = '/jobs') => (await server.post(path, body, { authorization })).status;
  const message = async (body: unknown, path = '/jobs') =>
    ((await (await server.post(path, body, { authorization })).json()) as { error: { message: string } }).error.message;

  test('without a key, with a wrong key; every way to show one', async () => {
    expect((await server.fetch('/jobs')).status).toBe(401);
    for (const [header, expected] of [
      ['Bearer wrong', 401],
      ['Bearer secret', 200],
      [`Basic ${btoa('user:secret')}`, 200],
      [`Basic ${btoa('user:wrong')}`, 401],
    ] as const) {
      expect([
        header,
        (await server.fetch('/sdapi/v1/options', { headers: { authorization: header } })).status,
      ]).toEqual([header, expected]);
    }
    expect((await server.fetch('/healthz')).status).toBe(200);
  });

  test("another key's job is not there", async () => {
    const job = (await (await server.post('/jobs', { prompt: 'x', steps: 1 }, { authorization })).json()) as {
      id: string;
    };
    const other = { headers: { authorization: 'Bearer other' } };
    expect((await server.fetch(`/jobs/${job.id}`, other)).status).toBe(404);
    expect((await server.fetch(`/jobs/${job.id}`, { ...other, method: 'DELETE' })).status).toBe(404);
    expect((await server.fetch(`/jobs/${job.id}`, { headers: { authorization } })).status).toBe(200);
  });

  test('broken JSON, wrong types, unknown fields with the nearest one, sizes beyond the limits', async () => {
    expect(await status('{"prompt": ')).toBe(400);
    expect(await status('[]')).toBe(400);
    expect(await status({ prompt: 5 })).toBe(400);
    expect(await message({ prompt: 'x', promt: 'y' })).toContain("did you mean 'prompt'");
    expect(await message({ prompt: 'x', steps: 151 })).toContain('limit of 150');
    expect(await message({ prompt: 'x', width: 8192, height: 8192 })).toContain('limit');
    expect(await message({ prompt: 'x', n: 11 })).toContain('limit of 10');
    expect(await status({ prompt: 'x', seed: -5 })).toBe(400);
    expect(await status({ prompt: 'x'.repeat(20_001) })).toBe(400);
    expect(await status({ prompt: 'x', model: '../../etc' })).toBe(404);
    expect(
      await status({ prompt: 'x', hires: { scale: 8, upscaler: 'latent', strength: 1 }, width: 2048, height: 2048 }),
    ).toBe(400);
  });

  test('pictures that are none, too large, or can name other files', async () => {
    const send = (image: Uint8Array | string) =>
      message({ prompt: 'x', image: typeof image === 'string' ? image : Buffer.from(image).toString('base64') });
    expect(await send('not base64!')).toContain('base64');
    expect(await send(Buffer.from('no picture at all'))).toContain('expects a picture');
    expect(await send(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>'))).toContain(
      'got svg',
    );
    const bomb = await sharp({ create: { width: 16000, height: 16000, channels: 3, background: 'white' } })
      .png()
      .toBuffer();
    expect(bomb.length).toBeLessThan(4e6);
    expect(await send(bomb)).toContain('pixel');
    expect(await send('/etc/passwd')).toContain('picture');
  });

  test('paths that lead elsewhere', async () => {
    for (const path of [
      '/../package.json',
      '/..%2f..%2fpackage.json',
      '/jobs/..%2f..%2fetc/pictures/0',
      '/sdapi/v1/../../etc/passwd',
    ]) {
      const { status: code } = await server.fetch(path, { headers: { authorization } });
      expect([path, code >= 400 && code < 500]).toEqual([path, true]);
    }
  });

  /** As no browser lets a page: with headers of the test's choice. */
  const raw = (lines: string[]): Promise<string> =>
    new Promise((resolve, reject) => {
      const { hostname, port } = new URL(server.url);
      const socket = connect(Number(port), hostname, () => socket.write(`${lines.join('\r\n')}\r\n\r\n`));
      let text = '';
      socket.on('data', (data) => {
        text += String(data);
        socket.end();
      });
      socket.on('close', () => resolve(text.split('\r\n', 1)[0]!));
      socket.on('error', reject);
    });

  test('foreign hosts and pages of other origins', async () => {
    const { host } = new URL(server.url);
    const key = `Authorization: ${authorization}`;
    const jobs = 'GET /jobs HTTP/1.1';
    expect(await raw([jobs, `Host: ${host}`, key])).toContain('200');
    expect(await raw([jobs, 'Host: evil.example', key])).toContain('403');
    expect(await raw([jobs, `Host: ${host}`, 'Origin: https://evil.example', key])).toContain('403');
    expect(await raw([jobs, `Host: ${host}`, 'Origin: null', key])).toContain('403');
    expect(await raw([jobs, `Host: ${host}`, 'Sec-Fetch-Site: cross-site', 'Sec-Fetch-Mode: no-cors', key])).toContain(
      '403',
    );
    expect(await raw([jobs, `Host: ${host}`, `Origin: http://${host}`, key])).toContain('200');
    expect(await raw(['GARBAGE'])).toContain('400');
    const large = ['POST /jobs HTTP/1.1', `Host: ${host}`, key, 'Content-Type: application/json'];
    expect(await raw([...large, `Content-Length: ${40 * 2 ** 20}`])).toContain('413');
  });

  test('after all of this it draws', async () => {
    const response = await server.post('/v1/images/generations', { prompt: 'x', steps: 1 }, { authorization });
    expect(response.status).toBe(200);
    expect((await server.fetch('/metrics', { headers: { authorization } })).status).toBe(200);
  });
});
