import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { parseParameters, readParameters } from '../../images/index.js';
import type { Picture } from '../engine/messages.js';
import { RequestError } from '../errors.js';
import type { JobView } from '../jobs/job.js';
import type { DrawRequest } from '../request/draw_request.js';
import { samplers, spacings } from '../request/samplers.js';
import { imageRequest, textRequest, WEB_UI_FIELDS, WEB_UI_WITHOUT_MEANING, type WebUiBody } from './a1111_request.js';
import { addJob, type ServerContext } from './context.js';
import { base64, cancelOnClose, followJob, picturesOf } from './follow.js';
import { knownFields } from './unknown_fields.js';
import { checkBase64, decodeBase64 } from './uploads.js';
import { validateLoosely } from './validation.js';

const BODY = { type: 'object', properties: WEB_UI_FIELDS };
const KNOWN = [...Object.keys(WEB_UI_FIELDS), ...WEB_UI_WITHOUT_MEANING];
const tags = ['stable-diffusion-webui'];
/** The web UI's upscalers that work on latents, and those on pictures that there are here. */
const LATENT_UPSCALERS = ['Latent'];
const UPSCALERS = ['None', 'Lanczos'];
/** Milliseconds that /progress waits for a picture on the way. */
const PREVIEW_WAIT = 1000;

/** The routes of stable-diffusion-webui, under /sdapi/v1 (its modules/api/api.py). */
export function a1111Routes(app: FastifyInstance, context: ServerContext): void {
  validateLoosely(app);
  app.setErrorHandler((error: Error & { statusCode?: number }, request, reply) => {
    const status = error instanceof RequestError ? error.status : (error.statusCode ?? 500);
    context.note(`${request.method} ${request.url.split('?', 1)[0]}: ${error.message}`);
    reply.code(status).send({ error: error.name, detail: error.message, body: '', errors: error.message });
  });
  drawingRoutes(app, context);
  optionRoutes(app, context);
  listRoutes(app, context);
}

/** The job that a client of these routes waits for, by owner. */
class CurrentJobs {
  private readonly jobs = new Map<string, { id: string; preview: Picture | undefined }[]>();

  add(owner: string, id: string): { id: string; preview: Picture | undefined } {
    const entry = { id, preview: undefined };
    this.jobs.set(owner, [...(this.jobs.get(owner) ?? []), entry]);
    return entry;
  }

  remove(owner: string, id: string): void {
    const left = (this.jobs.get(owner) ?? []).filter((entry) => entry.id !== id);
    if (left.length > 0) {
      this.jobs.set(owner, left);
    } else {
      this.jobs.delete(owner);
    }
  }

  of(owner: string): readonly { id: string; preview: Picture | undefined }[] {
    return this.jobs.get(owner) ?? [];
  }
}

function drawingRoutes(app: FastifyInstance, context: ServerContext): void {
  const { queue, limits } = context;
  const current = new CurrentJobs();
  type Drawing = FastifyRequest<{ Body: WebUiBody }>;

  async function respond(request: Drawing, reply: FastifyReply, draw: DrawRequest): Promise<object> {
    const { owner, body } = request;
    const job = await addJob(context, draw, owner);
    const entry = current.add(owner, job.id);
    cancelOnClose(queue, job.id, reply.raw);
    try {
      const ended = await followJob(queue, job.id, (event) => {
        if (event.type === 'preview') {
          entry.preview = { ...event.preview, width: 0, height: 0, seed: 0, parameters: '' };
        }
      });
      const pictures = await picturesOf(queue, ended);
      const images = body.send_images === false ? [] : pictures.map(base64);
      const { init_images: _, mask: __, ...parameters } = body;
      return { images, parameters, info: JSON.stringify(infoOf(body, ended, pictures)) };
    } finally {
      current.remove(owner, job.id);
    }
  }

  const note = knownFields('/sdapi/v1', KNOWN, context.note);
  const text = { tags, summary: 'Draws pictures from a prompt', body: BODY };
  app.post<{ Body: WebUiBody }>('/txt2img', { schema: text, preValidation: note }, (request, reply) =>
    respond(request, reply, textRequest(request.body)),
  );
  const image = { tags, summary: 'Draws pictures from a picture, or within a mask', body: BODY };
  app.post<{ Body: WebUiBody }>('/img2img', { schema: image, preValidation: note }, async (request, reply) =>
    respond(request, reply, await imageRequest(request.body, limits)),
  );
  progressRoutes(app, context, current);
}

function progressRoutes(app: FastifyInstance, context: ServerContext, current: CurrentJobs): void {
  const { queue } = context;
  const progress = { tags, summary: 'How far the picture is that this client waits for' };
  app.get<{ Querystring: { skip_current_image?: string } }>('/progress', { schema: progress }, async (request) => {
    const own = current.of(request.owner);
    const found = await Promise.all(own.map(async (entry) => ({ entry, job: (await queue.get(entry.id))?.job })));
    const drawn = found.find(({ job }) => job?.state === 'generating') ?? found[0];
    if (drawn && drawn.job?.state === 'generating' && request.query.skip_current_image !== 'true') {
      await lookAt(context, drawn.entry);
    }
    const job = drawn && (await queue.get(drawn.entry.id))?.job;
    return progressOf(job, drawn?.entry.preview, own.length);
  });
  for (const [route, what] of [
    ['interrupt', 'stop'],
    ['skip', 'skip'],
  ] as const) {
    const schema = { tags, summary: `Ends ${what === 'skip' ? 'the picture' : 'the job'} where it stands` };
    app.post(`/${route}`, { schema }, async (request) => {
      for (const { id } of current.of(request.owner)) {
        const asked = await queue.ask(id, what);
        if (!asked && what === 'stop') {
          await queue.cancel(id);
        }
      }
      return {};
    });
  }
}

/** Asks for a picture on the way and waits a little for it; the one before it will do. */
async function lookAt({ queue }: ServerContext, entry: { id: string; preview: Picture | undefined }): Promise<void> {
  const before = entry.preview;
  await queue.ask(entry.id, 'preview');
  const until = Date.now() + PREVIEW_WAIT;
  while (entry.preview === before && Date.now() < until && !before) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function progressOf(job: JobView | undefined, preview: Picture | undefined, count: number): object {
  const { picture = 0, pictures = 1, step = 0, steps = 0 } = job?.progress ?? {};
  const done = steps > 0 ? (picture + step / steps) / pictures : 0;
  return {
    progress: job ? Math.max(0.01, Math.min(done, 1)) : 0,
    eta_relative: job?.expected_seconds ?? 0,
    state: {
      ...{ skipped: false, interrupted: false, stopping_generation: false, job: job?.id ?? '' },
      ...{ job_count: job ? Math.max(count, pictures) : 0, job_timestamp: '0', job_no: picture },
      ...{ sampling_step: step, sampling_steps: steps },
    },
    current_image: preview ? base64(preview) : null,
    textinfo: job?.position === undefined ? null : `${job.position} jobs before it`,
  };
}

/** The web UI's `info`, which its clients parse (modules/processing.py, Processed.js). */
function infoOf(body: WebUiBody, job: JobView, pictures: readonly Picture[]): object {
  const { prompt = '', negative_prompt: negative = '' } = body;
  const [first] = pictures;
  const { settings } = parseParameters(first?.parameters ?? '');
  const seeds = pictures.map(({ seed }) => seed);
  const infotexts = pictures.map(({ parameters }) => parameters);
  return {
    ...{ prompt, negative_prompt: negative, all_prompts: seeds.map(() => prompt) },
    all_negative_prompts: seeds.map(() => negative),
    ...{ seed: seeds[0] ?? -1, all_seeds: seeds, subseed: -1, all_subseeds: seeds.map(() => -1), subseed_strength: 0 },
    ...{
      width: first?.width ?? 0,
      height: first?.height ?? 0,
      batch_size: pictures.length,
      steps: Number(settings.Steps),
    },
    ...{ sampler_name: settings.Sampler ?? '', cfg_scale: Number(settings['CFG scale']), restore_faces: false },
    ...{
      face_restoration_model: null,
      sd_model_name: job.model,
      sd_model_hash: '',
      sd_vae_name: null,
      sd_vae_hash: null,
    },
    ...{ seed_resize_from_w: -1, seed_resize_from_h: -1, denoising_strength: body.denoising_strength ?? null },
    ...{ extra_generation_params: {}, index_of_first_image: 0, infotexts, styles: [], clip_skip: 1 },
    ...{ job_timestamp: String(job.created), is_using_inpainting_conditioning: false, version: 'tfjs-diffusers' },
  };
}

function optionRoutes(app: FastifyInstance, context: ServerContext): void {
  const { catalog, model } = context;
  const options = async () => ({
    sd_model_checkpoint: model.current ?? (await catalog.list())[0]?.name ?? '',
    ...{ sd_checkpoint_hash: '', sd_vae: 'Automatic', CLIP_stop_at_last_layers: 1, samples_format: 'png' },
  });
  app.get('/options', { schema: { tags, summary: 'Settings, of which the model is one' } }, options);

  const schema = { tags, summary: 'Changes the model', body: { type: 'object' } };
  app.post<{ Body: Record<string, unknown> }>('/options', { schema }, async ({ body }) => {
    const { sd_model_checkpoint: name } = body;
    if (typeof name === 'string' && name !== '') {
      model.current = (await catalog.load(name.replace(/ \[[0-9a-f]+\]$/, ''))).name;
    }
    return null;
  });
}

function listRoutes(app: FastifyInstance, context: ServerContext): void {
  const { catalog, limits } = context;
  const list = (route: string, summary: string, items: () => unknown) =>
    app.get(`/${route}`, { schema: { tags, summary } }, async () => items());

  list('sd-models', 'The models of this server', async () =>
    (await catalog.list()).map(({ name }) => ({
      ...{ title: name, model_name: name, hash: null, sha256: null, filename: name, config: null },
    })),
  );
  list('samplers', 'Samplers', () => samplers().map((sampler) => ({ ...sampler, options: {} })));
  list('schedulers', 'Spacings of noise levels', () =>
    spacings().map(({ name, label }) => ({ name, label, aliases: null, default_rho: -1, need_inner_model: false })),
  );
  list('sd-vae', 'VAEs beside that of each model', () => []);
  list('upscalers', 'What enlarges pictures', () => UPSCALERS.map((name) => ({ name, scale: 4 })));
  list('latent-upscale-modes', 'What enlarges latents', () => LATENT_UPSCALERS.map((name) => ({ name })));
  list('loras', 'Low-rank adapters', async () => {
    const names = new Set((await catalog.list()).flatMap(({ capabilities }) => capabilities?.loras ?? []));
    return [...names].map((name) => ({ name, alias: name, path: name, metadata: {} }));
  });
  list('embeddings', 'Textual inversions', () => ({ loaded: {}, skipped: {} }));
  list('memory', 'Memory', () => memoryOf());

  const body = { type: 'object', required: ['image'], properties: { image: { type: 'string' } } };
  const schema = { tags, summary: 'Prompt and settings that a picture carries', body };
  app.post<{ Body: { image: string } }>('/png-info', { schema }, async ({ body: { image } }) => {
    await checkBase64('image', image, limits);
    const info = (await readParameters(decodeBase64('image', image))) ?? '';
    const { prompt, negativePrompt, settings } = parseParameters(info);
    const parameters = info ? { Prompt: prompt, 'Negative prompt': negativePrompt, ...settings } : {};
    return { info, items: info ? { parameters: info } : {}, parameters };
  });
}

function memoryOf(): object {
  const { rss, heapTotal } = process.memoryUsage();
  return {
    ram: { free: process.availableMemory?.() ?? 0, used: rss, total: rss + heapTotal },
    cuda: { error: 'unavailable' },
  };
}
