export { createServer, type PictureServer, type ServerOptions } from './create_server.js';
export type { Capabilities } from './engine/capabilities.js';
export type { DrawProgress, Picture, Preview } from './engine/messages.js';
export { EngineCrashError, QueueFullError, RequestError, UnknownModelError } from './errors.js';
export type { JobEvent, JobQueue, JobState, JobView } from './jobs/job.js';
export type { DrawOptions, DrawRequest } from './request/draw_request.js';
export { DEFAULT_LIMITS, type Limits } from './request/limits.js';
