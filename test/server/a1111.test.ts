import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import sharp from 'sharp';
import { bytesOf, eventually, PROMPT, pixelsOf, RunningServer, STAR } from './support.js';

let server: RunningServer;

beforeAll(async () => {
  server = await RunningServer.start();
});
afterAll(() => server.stop());

interface Drawn {
  images: string[];
  info: string;
  parameters: Record<string, unknown>;
}

const draw = async (body: object, route = 'txt2img'): Promise<Drawn> => {
  const response = await server.post(`/sdapi/v1/${route}`, body);
  expect([response.status, response.status === 200 ? '' : await response.text()]).toEqual([200, '']);
  return (await response.json()) as Drawn;
};

test('what Open WebUI sends (backend/open_webui/routers/images.py)', async () => {
  const options = await server.get('/sdapi/v1/options');
  expect(options.sd_model_checkpoint).toBe('tiny-shapes');
  const models = await server.get<{ title: string; model_name: string }[]>('/sdapi/v1/sd-models');
  expect(models.map(({ title, model_name }) => [title, model_name])).toEqual([['tiny-shapes', 'tiny-shapes']]);
  const set = await server.post('/sdapi/v1/options', { ...(options as object), sd_model_checkpoint: 'tiny-shapes' });
  expect(set.status).toBe(200);
  const { images } = await draw({ prompt: PROMPT, batch_size: 1, width: 64, height: 64, steps: 4 });
  expect((await sharp(bytesOf(images[0]!)).metadata()).width).toBe(64);

  const fields = { model: '', prompt: PROMPT, n: 1, size: '64x64', response_format: 'b64_json' };
  const answer = await server.post('/v1/images/generations', fields, { authorization: 'Bearer none' });
  expect(((await answer.json()) as { data: object[] }).data[0]).toHaveProperty('b64_json');
});

test('what LibreChat sends (api/app/clients/tools/structured/StableDiffusion.js)', async () => {
  const body = { prompt: PROMPT, negative_prompt: 'a heart', cfg_scale: 4.5, steps: 22, width: 64, height: 64 };
  const { images, info } = await draw(body);
  const { height, width, seed, infotexts } = JSON.parse(info);
  expect({ height, width }).toEqual({ height: 64, width: 64 });
  expect(infotexts[0]).toMatch(`Negative prompt: a heart\nSteps: 22, Sampler: Euler, CFG scale: 4.5, Seed: ${seed}`);
  const again = await draw({ ...body, seed });
  expect(again.images).toEqual(images);
});

test("what LibreChat's OpenAIImageTools send", async () => {
  const fields = {
    model: 'gpt-image-1',
    prompt: PROMPT,
    n: 1,
    background: 'auto',
    output_format: 'webp',
    size: 'auto',
  };
  const response = await server.post('/v1/images/generations', { ...fields, output_compression: 100, quality: 'auto' });
  const { data } = (await response.json()) as { data: { b64_json: string }[] };
  expect((await sharp(bytesOf(data[0]!.b64_json)).metadata()).format).toBe('webp');

  const form = new FormData();
  form.append('model', 'gpt-image-1');
  form.append('prompt', 'a red star');
  form.append('n', '1');
  form.append('size', 'auto');
  form.append('image[]', new Blob([new Uint8Array(readFileSync(STAR))], { type: 'image/png' }), 'star.png');
  const edited = await server.fetch('/v1/images/edits', { method: 'POST', body: form });
  expect(((await edited.json()) as { data: object[] }).data).toHaveLength(1);
});

test('what SillyTavern sends (src/endpoints/stable-diffusion.js)', async () => {
  const names = async (route: string, field: string) =>
    (await server.get<Record<string, string>[]>(`/sdapi/v1/${route}`)).map((row) => row[field]);
  expect(await names('samplers', 'name')).toEqual(expect.arrayContaining(['Euler a', 'DPM++ 2M', 'DDIM']));
  expect(await names('schedulers', 'name')).toEqual(expect.arrayContaining(['automatic', 'karras']));
  expect(await names('sd-models', 'title')).toEqual(['tiny-shapes']);
  expect(await names('sd-vae', 'model_name')).toEqual([]);
  expect(await names('upscalers', 'name')).toContain('Lanczos');
  expect(await names('latent-upscale-modes', 'name')).toContain('Latent');
  const idle = await server.get<{ progress: number; state: { job_count: number } }>('/sdapi/v1/progress');
  expect([idle.progress, idle.state.job_count]).toEqual([0, 0]);

  const { images, parameters, info } = await draw({
    ...{
      prompt: PROMPT,
      negative_prompt: 'lowres',
      sampler_name: 'Euler a',
      scheduler: 'karras',
      steps: 3,
      cfg_scale: 7,
    },
    ...{ width: 64, height: 64, seed: -1, restore_faces: false, enable_hr: true, hr_upscaler: 'Latent', hr_scale: 1.5 },
    ...{ hr_additional_steps: 0, hr_second_pass_steps: 2, denoising_strength: 0.7, clip_skip: 1, use_adetailer: false },
    override_settings: { CLIP_stop_at_last_layers: 2 },
    override_settings_restore_afterwards: true,
  });
  expect(parameters.prompt).toBe(PROMPT);
  expect((await sharp(bytesOf(images[0]!)).metadata()).width).toBe(96);
  expect(JSON.parse(info).infotexts[0]).toContain('Clip skip: 2');
});

test('progress shows the picture on the way; interrupt gives what is there', async () => {
  const drawing = draw({ prompt: 'a red circle', steps: 150, seed: 1 });
  type Progress = {
    progress: number;
    current_image: string | null;
    state: { sampling_step: number; sampling_steps: number };
  };
  const seen = await eventually(
    () => server.get<Progress>('/sdapi/v1/progress'),
    ({ current_image }) => current_image !== null,
  );
  expect(seen.progress).toBeGreaterThan(0);
  expect(seen.state.sampling_steps).toBe(150);
  expect((await sharp(bytesOf(seen.current_image!)).metadata()).width).toBe(64);
  await server.post('/sdapi/v1/interrupt', {});
  const { images, info } = await drawing;
  expect(images).toHaveLength(1);
  expect(JSON.parse(info).infotexts[0]).toMatch(/Stopped after: \d+, numInferenceSteps: 150/);
});

test('skip ends one picture of a batch', async () => {
  const drawing = draw({ prompt: 'a red circle', steps: 150, seed: 1, n_iter: 2 });
  await eventually(
    () => server.get<{ state: { sampling_step: number } }>('/sdapi/v1/progress?skip_current_image=true'),
    ({ state }) => state.sampling_step > 0,
  );
  await server.post('/sdapi/v1/skip', {});
  const { infotexts } = JSON.parse((await drawing).info);
  expect(infotexts[0]).toContain('Stopped after');
  expect(infotexts[1]).not.toContain('Stopped after');
});

test('image to image, hires fix by the picture, png-info, memory', async () => {
  const star = readFileSync(STAR).toString('base64');
  const { images } = await draw(
    { init_images: [`data:image/png;base64,${star}`], prompt: 'a red star', steps: 4 },
    'img2img',
  );
  const { info, parameters } = (await (await server.post('/sdapi/v1/png-info', { image: images[0] })).json()) as {
    info: string;
    parameters: Record<string, string>;
  };
  expect(info).toContain('a red star');
  expect(parameters.Steps).toBe('4');
  const body = {
    prompt: 'x',
    steps: 2,
    enable_hr: true,
    hr_upscaler: 'R-ESRGAN 4x+',
    hr_resize_x: 128,
    seed: 1,
    width: 64,
    height: 64,
  };
  const large = await draw({ ...body, denoising_strength: 0.9 });
  expect((await sharp(bytesOf(large.images[0]!)).metadata()).width).toBe(128);
  expect(await server.get('/sdapi/v1/memory')).toHaveProperty('ram.used');
});

test('a client that hangs up ends its job', async () => {
  const controller = new AbortController();
  const drawing = server.fetch('/sdapi/v1/txt2img', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'x', steps: 150, n_iter: 5 }),
    signal: controller.signal,
  });
  const { jobs } = await eventually(
    () => server.get<{ jobs: { id: string; state: string }[] }>('/jobs'),
    (answer) => answer.jobs[0]?.state === 'generating',
  );
  controller.abort();
  await expect(drawing).rejects.toThrow();
  expect((await server.ended(jobs[0]!.id)).state).toBe('cancelled');
});

test('the two pictures of a prompt are the two pictures of their seeds', async () => {
  const both = await draw({ prompt: PROMPT, seed: 0, batch_size: 2, steps: 20, send_images: true });
  const { all_seeds } = JSON.parse(both.info);
  expect(all_seeds).toEqual([0, 1]);
  expect(await pixelsOf(bytesOf(both.images[0]!))).toEqual(await pixelsOf(STAR));
});
