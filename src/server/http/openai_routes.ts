import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Picture } from '../engine/messages.js';
import { RequestError } from '../errors.js';
import type { JobView } from '../jobs/job.js';
import { DRAW_FIELDS, type DrawRequest, type LoraChoice } from '../request/draw_request.js';
import { addJob, type ServerContext } from './context.js';
import { base64, cancelOnClose, EventStream, followJob, picturesOf } from './follow.js';
import { withSize } from './jobs_routes.js';
import { readForm } from './multipart.js';
import { knownFields } from './unknown_fields.js';
import { checkUpload, maskOfAlpha } from './uploads.js';
import { validateLoosely } from './validation.js';

/** Fields of OpenAI's API that have a meaning here, and ours beside them. */
interface ImageBody {
  prompt: string;
  model?: string;
  n?: number;
  size?: string;
  response_format?: 'b64_json' | 'url';
  output_format?: 'png' | 'jpeg' | 'webp';
  output_compression?: number;
  stream?: boolean;
  partial_images?: number;
  seed?: number;
  steps?: number;
  num_inference_steps?: number;
  negative_prompt?: string;
  guidance_scale?: number;
  cfg_scale?: number;
  sampler?: string;
  scheduler?: string;
  strength?: number;
  clip_skip?: number;
  lora?: LoraChoice[];
}

const { seed, steps, negative_prompt, guidance_scale, sampler, scheduler, strength, clip_skip, lora } = DRAW_FIELDS;
const PROPERTIES = {
  prompt: DRAW_FIELDS.prompt,
  model: DRAW_FIELDS.model,
  n: DRAW_FIELDS.n,
  size: { type: 'string', pattern: '^(auto|\\d{1,5}x\\d{1,5})$', description: "'512x512', or 'auto' for the model's" },
  response_format: {
    type: 'string',
    enum: ['b64_json', 'url'],
    description: "'url' is only made when it is asked for",
  },
  output_format: DRAW_FIELDS.output_format,
  output_compression: { type: 'integer', minimum: 0, maximum: 100 },
  stream: { type: 'boolean' },
  partial_images: { type: 'integer', minimum: 0, maximum: 3, description: 'of each picture, with `stream`' },
  ...{ seed, steps, num_inference_steps: steps, negative_prompt, guidance_scale, cfg_scale: guidance_scale },
  ...{ sampler, scheduler, strength, clip_skip, lora },
};
const BODY = { type: 'object', required: ['prompt'], properties: PROPERTIES };
/** Fields that clients send and that mean nothing to a diffusion model. */
const WITHOUT_MEANING = [
  'quality',
  'style',
  'user',
  'background',
  'moderation',
  'input_fidelity',
  'output_compression',
];
const KNOWN = [...Object.keys(PROPERTIES), ...WITHOUT_MEANING, 'image', 'image[]', 'mask'];

type Route = 'image_generation' | 'image_edit';

/** OpenAI's routes, under /v1. */
export function openaiRoutes(app: FastifyInstance, context: ServerContext): void {
  validateLoosely(app);
  const tags = ['OpenAI'];
  app.setErrorHandler((error: Error & { statusCode?: number }, request, reply) => {
    const status = error instanceof RequestError ? error.status : (error.statusCode ?? 500);
    const type = status < 500 ? 'invalid_request_error' : 'server_error';
    const code = error instanceof RequestError ? error.code : null;
    context.note(`${request.method} ${request.url.split('?', 1)[0]}: ${error.message}`);
    reply.code(status).send({ error: { message: error.message, type, param: null, code } });
  });

  app.get('/models', { schema: { tags, summary: 'The models of this server' } }, async () => ({
    object: 'list',
    data: (await context.catalog.list()).map(({ name }) => modelObject(name)),
  }));
  app.get<{ Params: { id: string } }>('/models/:id', { schema: { tags, summary: 'A model' } }, async ({ params }) => {
    const found = (await context.catalog.list()).find(({ name }) => name === params.id);
    if (!found) {
      throw new RequestError(`there is no model '${params.id}'`, 404, 'model_not_found');
    }
    return modelObject(found.name);
  });

  const note = knownFields('/v1/images', KNOWN, context.note);
  const generate = { tags, summary: 'Draws pictures from a prompt', body: BODY };
  app.post<{ Body: ImageBody }>('/images/generations', { schema: generate, preValidation: note }, (request, reply) =>
    respond(context, 'image_generation', drawRequest(request.body), request, reply),
  );

  const edit = {
    tags,
    summary: 'Draws pictures from a picture, or within a mask',
    consumes: ['multipart/form-data'],
    body: BODY,
  };
  app.post<{ Body: ImageBody }>(
    '/images/edits',
    { schema: edit, preValidation: [readForm(context.limits), note] },
    async (request, reply) => respond(context, 'image_edit', await editRequest(request, context), request, reply),
  );
}

const modelObject = (id: string) => ({ id, object: 'model', created: 0, owned_by: 'tfjs-diffusers' });

function drawRequest(body: ImageBody): DrawRequest {
  const { size = 'auto', output_compression: quality, num_inference_steps, cfg_scale, stream, partial_images } = body;
  const { response_format: _, size: __, output_compression: ___, ...rest } = body;
  const [width, height] = size === 'auto' ? [] : size.split('x').map(Number);
  return {
    ...withoutUndefined(pick(rest)),
    ...{ width, height, steps: body.steps ?? num_inference_steps, guidance_scale: body.guidance_scale ?? cfg_scale },
    output_quality: quality === undefined ? undefined : Math.max(1, quality),
    previews: stream ? partial_images : 0,
    preview_format: body.output_format ?? 'png',
    preview_method: 'vae',
    lenient: true,
  };
}

/** Only what is ours goes on. */
function pick(body: Partial<ImageBody>): DrawRequest {
  const own = Object.entries(body).filter(([name]) => Object.hasOwn(DRAW_FIELDS, name));
  return Object.fromEntries(own) as unknown as DrawRequest;
}

const withoutUndefined = <T extends object>(values: T): T =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as T;

/** Several pictures come from clients that compose them; a diffusion model begins with the first one. */
async function editRequest(request: FastifyRequest<{ Body: ImageBody }>, context: ServerContext): Promise<DrawRequest> {
  const { limits } = context;
  const [first, ...others] = ['image', 'image[]'].flatMap((name) => request.uploads[name] ?? []);
  if (!first) {
    throw new RequestError("a picture is missing: send it as 'image' in multipart/form-data");
  }
  if (others.length > 0) {
    context.note('/v1/images/edits: of several pictures the first one is used');
  }
  const image = await checkUpload('image', first, limits);
  const area = request.uploads.mask?.[0];
  const mask = area ? await checkUpload('mask', area, limits) : image.hasAlpha ? image : undefined;
  const draw = drawRequest(request.body);
  return {
    ...draw,
    ...withSize(draw, image, limits),
    image: image.bytes,
    mask: mask && (mask.hasAlpha ? await maskOfAlpha(mask) : mask.bytes),
  };
}

async function respond(
  context: ServerContext,
  route: Route,
  draw: DrawRequest,
  request: FastifyRequest<{ Body: ImageBody }>,
  reply: FastifyReply,
): Promise<unknown> {
  const { queue } = context;
  const job = await addJob(context, draw, request.owner);
  cancelOnClose(queue, job.id, reply.raw);
  if (request.body.stream) {
    return stream(context, route, job, draw, reply);
  }
  const pictures = await picturesOf(queue, await followJob(queue, job.id));
  const { response_format: as = 'b64_json', size = 'auto' } = request.body;
  const base = `${request.protocol}://${request.headers.host}`;
  return {
    created: seconds(),
    data: pictures.map((picture, i) =>
      as === 'url' ? { url: `${base}/jobs/${job.id}/pictures/${i}` } : { b64_json: base64(picture) },
    ),
    ...{ size, output_format: draw.output_format ?? 'png', usage: USAGE },
    seeds: pictures.map(({ seed }) => seed),
  };
}

const seconds = () => Math.floor(Date.now() / 1000);
/** Pictures are not paid by the token. */
const USAGE = {
  ...{ input_tokens: 0, output_tokens: 0, total_tokens: 0 },
  input_tokens_details: { text_tokens: 0, image_tokens: 0 },
};

/** Partial pictures while they are drawn, then the pictures, as OpenAI's server-sent events. */
async function stream(
  { queue }: ServerContext,
  route: Route,
  job: JobView,
  draw: DrawRequest,
  reply: FastifyReply,
): Promise<void> {
  const events = new EventStream(reply);
  const common = (picture: { format: Picture['format'] }, size: string) => ({
    ...{ created_at: seconds(), size, quality: 'auto', background: 'opaque', output_format: picture.format },
  });
  const wanted = draw.width ? `${draw.width}x${draw.height}` : 'auto';
  const ended = await followJob(queue, job.id, (event) => {
    if (event.type === 'preview') {
      const type = `${route}.partial_image`;
      const { preview } = event;
      const data = { b64_json: base64(preview), partial_image_index: preview.index, ...common(preview, wanted) };
      events.sendPreview(type, { type, ...data });
    }
  });
  try {
    const type = `${route}.completed`;
    for (const picture of await picturesOf(queue, ended)) {
      const size = `${picture.width}x${picture.height}`;
      events.send(type, {
        type,
        b64_json: base64(picture),
        ...common(picture, size),
        seed: picture.seed,
        usage: USAGE,
      });
    }
  } catch (error) {
    const { message, code } = error as RequestError;
    events.send('error', { type: 'error', error: { message, type: 'server_error', code, param: null } });
  }
  events.end();
}
