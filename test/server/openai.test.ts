import { readFileSync } from 'node:fs';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { generateImage } from 'ai';
import OpenAI, { toFile } from 'openai';
import sharp from 'sharp';
import { bytesOf, eventually, PROMPT, pixelsOf, RunningServer, STAR } from './support.js';

let server: RunningServer;
let client: OpenAI;

beforeAll(async () => {
  server = await RunningServer.start();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
});
afterAll(() => server.stop());

/** Fields of ours that OpenAI's types do not have. */
const more = (fields: object) => fields as object;
const star = async () => pixelsOf(STAR);

test('the openai client lists models and draws what the command line draws', async () => {
  const models = await client.models.list();
  expect(models.data.map(({ id }) => id)).toEqual(['tiny-shapes']);
  const { data, created } = await client.images.generate({ prompt: PROMPT, ...more({ seed: 0 }) });
  expect(created).toBeGreaterThan(1.7e9);
  expect(await pixelsOf(bytesOf(data![0]!.b64_json!))).toEqual(await star());
});

test('size, n, formats and fields of ours', async () => {
  const { data } = await client.images.generate({
    ...{ model: 'gpt-image-1', prompt: 'a red circle', n: 2, size: '96x64' as never, output_format: 'webp' },
    ...{ background: 'auto', quality: 'high', output_compression: 90 },
    ...more({
      seed: 5,
      steps: 2,
      negative_prompt: 'a square',
      guidance_scale: 3,
      sampler: 'Euler a',
      scheduler: 'karras',
    }),
  });
  const sizes = await Promise.all(data!.map(({ b64_json }) => sharp(bytesOf(b64_json!)).metadata()));
  expect(sizes.map(({ format, width, height }) => ({ format, width, height }))).toEqual([
    { format: 'webp', width: 96, height: 64 },
    { format: 'webp', width: 96, height: 64 },
  ]);
});

test('the second of two pictures is that of the seed that follows', async () => {
  const both = await client.images.generate({ prompt: PROMPT, n: 2, ...more({ seed: 41, steps: 4 }) });
  const second = await client.images.generate({ prompt: PROMPT, ...more({ seed: 42, num_inference_steps: 4 }) });
  expect(both.data![1]!.b64_json).toBe(second.data![0]!.b64_json);
  expect(both.data![0]!.b64_json).not.toBe(second.data![0]!.b64_json);
});

test('an address only when it is asked for', async () => {
  const fields = { prompt: PROMPT, ...more({ seed: 0, steps: 2 }) };
  const { data } = await client.images.generate({ ...fields, response_format: 'url' });
  const response = await fetch(data![0]!.url!);
  expect(response.headers.get('content-type')).toBe('image/png');
  const plain = await client.images.generate(fields);
  expect(Buffer.from(await response.arrayBuffer()).toString('base64')).toBe(plain.data![0]!.b64_json);
});

test('a stream has as many partial pictures as were asked for, then the picture', async () => {
  const stream = await client.images.generate({
    prompt: PROMPT,
    stream: true,
    partial_images: 3,
    ...more({ seed: 0 }),
  });
  const events = [];
  for await (const event of stream) {
    events.push(event);
  }
  expect(events.map(({ type }) => type)).toEqual([
    ...Array(3).fill('image_generation.partial_image'),
    'image_generation.completed',
  ]);
  expect(events.slice(0, 3).map((event) => (event as { partial_image_index: number }).partial_image_index)).toEqual([
    0, 1, 2,
  ]);
  const pictures = await Promise.all(events.map(({ b64_json }) => pixelsOf(bytesOf(b64_json))));
  expect(pictures[3]).toEqual(await star());
  const errors = pictures
    .slice(0, 3)
    .map((picture) => picture.reduce((sum, x, i) => sum + Math.abs(x - pictures[3]![i]!), 0));
  // each is nearer to the picture than the one before
  expect(errors[0]).toBeGreaterThan(errors[1]!);
  expect(errors[1]).toBeGreaterThan(errors[2]!);
  expect(errors[2]).toBeGreaterThan(0);
});

test('edits begin with the picture, and stream', async () => {
  const image = await toFile(readFileSync(STAR), 'star.png', { type: 'image/png' });
  const edit = { image, prompt: 'a red star', ...more({ seed: 1, strength: 0.5, steps: 6 }) };
  const { data } = await client.images.edit(edit);
  const stream = await client.images.edit({ ...edit, stream: true, partial_images: 1 });
  const events = [];
  for await (const event of stream) {
    events.push(event);
  }
  expect(events.map(({ type }) => type)).toEqual(['image_edit.partial_image', 'image_edit.completed']);
  expect(events[1]!.b64_json).toBe(data![0]!.b64_json);
  const other = await client.images.edit({ ...edit, prompt: 'a red star', ...more({ strength: 0.9 }) });
  expect(other.data![0]!.b64_json).not.toBe(data![0]!.b64_json);
});

test('errors are those of OpenAI', async () => {
  const wrong = (fields: object) =>
    client.images.generate({ prompt: 'x', ...fields }).then(
      () => undefined,
      (error: InstanceType<typeof OpenAI.APIError>) => ({ status: error.status, message: error.message }),
    );
  expect(await wrong({ model: 'sd9' })).toMatchObject({ status: 404, message: expect.stringContaining("'sd9'") });
  expect(await wrong({ size: '60001x60001' })).toMatchObject({
    status: 400,
    message: expect.stringContaining('limit'),
  });
  expect(await wrong({ size: '65x64' })).toMatchObject({
    status: 400,
    message: expect.stringContaining('multiple of 4'),
  });
  expect(await wrong({ n: 11 })).toMatchObject({ status: 400 });
  expect(await wrong({ sampler: 'eulr' })).toMatchObject({ status: 400, message: expect.stringContaining("'Euler'") });
  expect(await wrong({ prompt: undefined })).toMatchObject({ status: 400, message: expect.stringContaining('prompt') });
});

test('fields that are not known are noted once', async () => {
  await client.images.generate({ prompt: 'x', ...more({ steps: 1, wobble: 1, style: null }) });
  await client.images.generate({ prompt: 'x', ...more({ steps: 1, wobble: 2 }) });
  expect(server.log.match(/wobble/g)).toHaveLength(1);
  expect(server.log).not.toContain('style');
});

test('the AI SDK draws, with its options, and edits; an abort ends the job', async () => {
  const provider = createOpenAICompatible({ name: 'local', baseURL: `${server.url}/v1` });
  const model = provider.imageModel('tiny-shapes');
  const { image } = await generateImage({ model, prompt: PROMPT, providerOptions: { local: { seed: 0 } } });
  expect(await pixelsOf(image.uint8Array)).toEqual(await star());

  const edited = await generateImage({
    model,
    prompt: { text: 'a red star', images: [readFileSync(STAR)] },
    providerOptions: { local: { seed: 1, strength: 0.5, steps: 6 } },
  });
  expect((await sharp(edited.image.uint8Array).metadata()).width).toBe(64);

  const controller = new AbortController();
  const options = { local: { steps: 150 } };
  const long = generateImage({
    model,
    prompt: 'x',
    providerOptions: options,
    abortSignal: controller.signal,
    maxRetries: 0,
  });
  await eventually(
    () => server.get<{ jobs: { progress?: { step: number } }[] }>('/jobs'),
    ({ jobs }) => (jobs[0]?.progress?.step ?? 0) >= 1,
  );
  controller.abort();
  await expect(long).rejects.toThrow();
  await eventually(
    () => server.get<{ generating: number }>('/healthz'),
    ({ generating }) => generating === 0,
  );
  expect(await (await server.fetch('/metrics')).text()).toContain('state="cancelled"} 1');
});
