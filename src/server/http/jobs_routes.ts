import type { FastifyInstance } from 'fastify';
import { readParameters } from '../../images/index.js';
import { parseParameters } from '../../images/parameters.js';
import { RequestError } from '../errors.js';
import type { JobView } from '../jobs/job.js';
import { DRAW_FIELDS, type DrawOptions, type DrawRequest, MAX_PROMPT } from '../request/draw_request.js';
import type { Limits } from '../request/limits.js';
import { samplers, spacings } from '../request/samplers.js';
import { addJob, meantModel, ownJob, type ServerContext } from './context.js';
import { base64, EventStream, followJob } from './follow.js';
import { checkBase64 } from './uploads.js';
import { validateStrictly } from './validation.js';

type JobBody = DrawOptions & { image?: string; mask?: string };
interface IdParams {
  id: string;
}

const picture = (description: string) => ({ type: 'string', description });
const BODY = {
  type: 'object',
  additionalProperties: false,
  required: ['prompt'],
  properties: {
    ...DRAW_FIELDS,
    image: picture('picture to begin with: base64 or a data URL'),
    mask: picture('white where `image` is drawn anew: base64 or a data URL'),
  },
};
const ID = {
  type: 'object',
  required: ['id'],
  properties: { id: { type: 'string', pattern: '^[0-9A-Za-z_-]{1,64}$' } },
};

/** A request whose pictures are read and found small enough. */
async function readRequest({ image, mask, ...options }: JobBody, limits: Limits): Promise<DrawRequest> {
  const [picture, area] = await Promise.all([
    image === undefined ? undefined : checkBase64('image', image, limits),
    mask === undefined ? undefined : checkBase64('mask', mask, limits),
  ]);
  return { ...options, ...withSize(options, picture, limits), image: picture?.bytes, mask: area?.bytes };
}

/** A picture without a wanted size is drawn in its own, which must be within the limits, too. */
export function withSize(
  { width, height }: { width?: number; height?: number },
  picture: { width: number; height: number } | undefined,
  { pixels }: Limits,
): { width?: number; height?: number } {
  const size = { width: width ?? picture?.width, height: height ?? picture?.height };
  if (picture && size.width! * size.height! > pixels) {
    throw new RequestError(`image has ${size.width} x ${size.height} pixels, more than this server draws (${pixels})`);
  }
  return { width, height };
}

/** What clients are told of a job: its view, and where its pictures are. */
function answer(job: JobView): object {
  const pictures = job.pictures?.map((info, i) => ({ ...info, url: `/jobs/${job.id}/pictures/${i}` }));
  return { ...job, ...(pictures ? { pictures } : {}) };
}

/** Our own routes: /capabilities, and jobs that go on when their connection is closed. */
export function jobsRoutes(app: FastifyInstance, context: ServerContext): void {
  validateStrictly(app);
  const { queue, limits } = context;
  const tags = ['jobs'];
  capabilityRoutes(app, context);

  app.post<{ Body: JobBody }>(
    '/jobs',
    { schema: { tags, summary: 'Adds a job', body: BODY } },
    async (request, reply) => {
      const job = await addJob(context, await readRequest(request.body, limits), request.owner);
      return reply.code(202).header('location', `/jobs/${job.id}`).send(answer(job));
    },
  );

  app.get('/jobs', { schema: { tags, summary: 'Jobs that wait or are drawn, in their order' } }, async (request) => {
    const jobs = await queue.list();
    // of others' jobs it is told that they are there
    const visible = jobs.map(({ job, owner }) =>
      context.hasKeys && owner !== request.owner ? { state: job.state, position: job.position } : answer(job),
    );
    return { jobs: visible };
  });

  app.get<{ Params: IdParams }>('/jobs/:id', { schema: { tags, summary: 'A job', params: ID } }, async (request) =>
    answer(await ownJob(context, request.params.id, request)),
  );

  app.delete<{ Params: IdParams }>('/jobs/:id', { schema: { tags, summary: 'Cancels a job', params: ID } }, (request) =>
    cancel(request.params.id, request),
  );
  const summary = 'The same, for clients without DELETE';
  app.post<{ Params: IdParams }>('/jobs/:id/cancel', { schema: { tags, summary, params: ID } }, (request) =>
    cancel(request.params.id, request),
  );
  async function cancel(id: string, request: Parameters<typeof ownJob>[2]): Promise<object> {
    await ownJob(context, id, request);
    await queue.cancel(id);
    return answer(await ownJob(context, id, request));
  }
  jobEventRoutes(app, context);
}

/** A job's events and pictures. */
function jobEventRoutes(app: FastifyInstance, context: ServerContext): void {
  const { queue } = context;
  const tags = ['jobs'];
  const events = {
    tags,
    params: ID,
    summary: 'What happens to a job, as server-sent events: state, progress, preview; the last one tells how it ended',
  };
  app.get<{ Params: IdParams }>('/jobs/:id/events', { schema: events }, async (request, reply) => {
    const job = await ownJob(context, request.params.id, request);
    const stream = new EventStream(reply);
    stream.send('state', answer(job));
    const ended = await followJob(queue, job.id, (event) => {
      if (event.type === 'preview') {
        const { bytes: _, ...preview } = event.preview;
        stream.sendPreview('preview', { ...preview, b64_json: base64(event.preview) });
      } else if (event.type === 'progress') {
        stream.send('progress', answer(event.job));
      }
    });
    stream.send('state', answer(ended));
    stream.end();
  });

  const params = { ...ID, properties: { ...ID.properties, index: { type: 'string', pattern: '^\\d{1,4}$' } } };
  const schema = { tags, params, summary: 'A picture of a completed job, as long as it is kept' };
  app.get<{ Params: IdParams & { index: string } }>('/jobs/:id/pictures/:index', { schema }, async (request, reply) => {
    const { id, index } = request.params;
    const job = await ownJob(context, id, request);
    const found = (await queue.pictures(job.id))?.[Number(index)];
    if (!found) {
      throw new RequestError(`job '${id}' has no picture ${index}`, 404, 'picture_not_found');
    }
    reply.header('content-type', `image/${found.format}`).header('cache-control', 'private, max-age=3600');
    return reply.send(Buffer.from(found.bytes));
  });
}

/** What pages are drawn from. */
function capabilityRoutes(app: FastifyInstance, context: ServerContext): void {
  const { catalog, limits } = context;
  const tags = ['models'];
  app.get('/capabilities', { schema: { tags, summary: 'Models, what each can do, and limits' } }, async () => ({
    model: context.model.current ?? (await catalog.list())[0]?.name,
    models: await catalog.list(),
    ...{ samplers: samplers(), schedulers: spacings(), limits },
  }));

  const name = { type: 'object', properties: { name: { type: 'string', maxLength: 200 } } };
  const load = { tags, params: name, summary: 'Loads a model and says what it can do' };
  app.post<{ Params: { name: string } }>('/models/:name/load', { schema: load }, async ({ params }) =>
    catalog.load(meantModel(context, params.name)),
  );

  const tokens = {
    tags,
    summary: 'Counts the tokens of a prompt',
    body: {
      type: 'object',
      additionalProperties: false,
      required: ['text'],
      properties: { text: { type: 'string', maxLength: MAX_PROMPT }, model: DRAW_FIELDS.model },
    },
  };
  app.post<{ Body: { text: string; model?: string } }>('/tokens', { schema: tokens }, async ({ body }) => ({
    tokens: await catalog.tokens(meantModel(context, body.model), body.text),
  }));

  const info = {
    tags,
    summary: 'Prompt and settings that a picture carries',
    body: {
      type: 'object',
      additionalProperties: false,
      required: ['image'],
      properties: { image: picture('base64 or a data URL') },
    },
  };
  app.post<{ Body: { image: string } }>('/png-info', { schema: info }, async ({ body }) => {
    const parameters = await readParameters((await checkBase64('image', body.image, limits)).bytes);
    return parameters === undefined ? { parameters: null } : { parameters, ...parseParameters(parameters) };
  });
}
