import { DiffusersError } from '../errors.js';

/** What a request asks for cannot be had; the message says why and goes to the client. */
export class RequestError extends DiffusersError {
  /** @param status of HTTP */
  constructor(
    message: string,
    readonly status: number = 400,
    readonly code: string = 'invalid_request',
  ) {
    super(message);
  }
}

/** The queue has no place left. */
export class QueueFullError extends RequestError {
  constructor(limit: number) {
    super(`the queue is full: ${limit} jobs wait already; try again later`, 429, 'queue_full');
  }
}

/** There is no model of that name. */
export class UnknownModelError extends RequestError {
  constructor(name: string, known: readonly string[]) {
    super(`there is no model '${name}'; this server has ${known.join(', ') || 'none'}`, 404, 'model_not_found');
  }
}

/** The process that drew a job has ended; a new one is started for the next job. */
export class EngineCrashError extends DiffusersError {}

/** Names of errors that are the fault of what was asked for, not of the server. */
const CLIENT_FAULTS: ReadonlySet<string> = new Set(['InvalidArgumentError', 'RequestError', 'NotReproducibleError']);

/** An error as it travels between processes and to clients. */
export interface ErrorReport {
  type: string;
  message: string;
}

export function reportOf(error: unknown): ErrorReport {
  return error instanceof Error
    ? { type: error.name, message: error.message || error.name }
    : { type: 'Error', message: String(error) };
}

/** Status of HTTP for a job that failed. */
export const failureStatus = ({ type }: ErrorReport): number => (CLIENT_FAULTS.has(type) ? 400 : 500);
