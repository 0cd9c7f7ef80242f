import { env, storedHubToken } from '#platform';
import { AbortedError, DownloadError, InvalidArgumentError } from '../../errors.js';
import { describe } from '../../utils/check.js';

/** Times that a request is made again, or a transfer taken up without much more arriving, before it counts as failed. */
export const MAX_RETRIES = 4;
/** Waiting before the first retry, in milliseconds; doubles each time. */
const FIRST_DELAY = 250;
/** Longest wait that a server may ask for with Retry-After, in seconds. */
const MAX_RETRY_AFTER = 60;
/** Longest time, in seconds, in which nearly nothing arrives; HF_HUB_DOWNLOAD_TIMEOUT unless 30. */
const STALL_SECONDS = 30;
/** Bytes a second below which a transfer stands still. */
const MIN_SPEED = 1024;
/** Largest answer of the hub that is not a file; a page of the listing of 1000 files takes half a megabyte. */
const MAX_ANSWER_BYTES = 32 * 2 ** 20;

interface HubRequestFacts extends ErrorOptions {
  /** Trying again later, or elsewhere, may help: no connection, a busy or broken server. */
  transient: boolean;
  /** Seconds that the server asks to wait for. */
  retryAfter?: number;
  /** Nobody is there, so that trying again at once is idle. */
  unreachable?: boolean;
}

/** A request to the hub that failed. */
export class HubRequestError extends DownloadError {
  readonly transient: boolean;
  readonly retryAfter: number | undefined;
  readonly unreachable: boolean;

  constructor(message: string, { transient, retryAfter, unreachable = false, ...options }: HubRequestFacts) {
    super(message, options);
    this.transient = transient;
    this.retryAfter = retryAfter;
    this.unreachable = unreachable;
  }
}

export interface HubAccess {
  /** The hub's address without a slash at the end. */
  endpoint: string;
  /** The repository, for messages. */
  id: string;
  revision: string;
  token?: string;
  signal?: AbortSignal;
}

export function throwIfAborted(signal: AbortSignal | undefined, id: string): void {
  if (signal?.aborted) {
    throw new AbortedError(`the download of '${id}' was stopped`, { cause: signal.reason });
  }
}

const isTrue = (value: string | undefined): boolean => /^(1|on|yes|true)$/i.test(value ?? '');

/**
 * HF_ENDPOINT, or the public hub; without slashes at the end.
 * @throws {InvalidArgumentError} when HF_ENDPOINT is no address
 */
export function hubEndpoint(): string {
  let endpoint = env('HF_ENDPOINT')?.trim() || 'https://huggingface.co';
  if (!/^https?:\/\//i.test(endpoint) || !URL.canParse(endpoint)) {
    throw new InvalidArgumentError(
      `HF_ENDPOINT must be an address like https://huggingface.co, got '${endpoint.slice(0, 200)}'`,
    );
  }
  while (endpoint.endsWith('/')) {
    endpoint = endpoint.slice(0, -1);
  }
  return endpoint;
}

/** Whether HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids the network. */
export function isOffline(): boolean {
  return isTrue(env('HF_HUB_OFFLINE')) || isTrue(env('TRANSFORMERS_OFFLINE'));
}

/**
 * The token given, else HF_TOKEN, else the one that `hf auth login` stored; undefined with false and when there is none.
 * @throws {InvalidArgumentError} when it cannot be sent; the message does not show it
 */
export async function hubToken(given: string | false | undefined): Promise<string | undefined> {
  if (given === false || (given === undefined && isTrue(env('HF_HUB_DISABLE_IMPLICIT_TOKEN')))) {
    return undefined;
  }
  const [source, token] =
    given !== undefined
      ? ['the option token', given]
      : env('HF_TOKEN')?.trim()
        ? ['HF_TOKEN', env('HF_TOKEN')]
        : env('HUGGING_FACE_HUB_TOKEN')?.trim()
          ? ['HUGGING_FACE_HUB_TOKEN', env('HUGGING_FACE_HUB_TOKEN')]
          : ['the stored token', await storedHubToken()];
  if (token !== undefined && (typeof token !== 'string' || !/^[\x21-\x7e]*$/.test(token.trim()))) {
    throw new InvalidArgumentError(
      `[hub] ${source} expects an access token, a word of letters and digits such as hf_..., got something with spaces, ` +
        'line breaks or other characters (not shown here)',
    );
  }
  return token?.trim() || undefined;
}

/** The time without data after which a transfer counts as stalled, in milliseconds. */
function stallTime(): number {
  const seconds = Number(env('HF_HUB_DOWNLOAD_TIMEOUT'));
  return 1000 * (seconds > 0 && seconds <= 3600 ? seconds : STALL_SECONDS);
}

/** Stops a transfer in which, from one look to the next, nearly nothing arrived. */
class StallGuard {
  private readonly controller = new AbortController();
  private readonly timer: ReturnType<typeof setInterval>;
  private arrived = 0;
  readonly signal: AbortSignal;
  readonly milliseconds = stallTime();

  constructor(signal: AbortSignal | undefined) {
    this.signal = signal ? AbortSignal.any([signal, this.controller.signal]) : this.controller.signal;
    this.timer = setInterval(() => {
      if (this.arrived < (MIN_SPEED * this.milliseconds) / 1000) {
        this.controller.abort(new Error(`nearly nothing arrived in ${this.milliseconds / 1000} s`));
      }
      this.arrived = 0;
    }, this.milliseconds);
  }

  /** What `work` gives, unless it is stopped first: a body that cannot be decoded may wait forever, its signal or not. */
  race<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const stop = () => reject(this.signal.reason);
      this.signal.addEventListener('abort', stop, { once: true });
      work.then(resolve, reject).finally(() => this.signal.removeEventListener('abort', stop));
      if (this.signal.aborted) {
        stop();
      }
    });
  }

  get hasStalled(): boolean {
    return this.controller.signal.aborted;
  }

  note(bytes: number): void {
    this.arrived += bytes;
  }

  end(): void {
    clearInterval(this.timer);
  }
}

/** The chunks of a body; one that breaks off or stands still is an error about `what`. */
async function* chunksOf(response: Response, guard: StallGuard, access: HubAccess, what: string) {
  const reader = response.body?.getReader();
  const next = () =>
    reader && guard.race(reader.read()).catch((error) => Promise.reject(brokenOff(access, what, error)));
  try {
    for (let part = await next(); part && !part.done; part = await next()) {
      guard.note(part.value.length);
      yield part.value as Uint8Array<ArrayBuffer>;
    }
  } finally {
    guard.end();
    // not awaited: a decoder that waits for what never comes does not end either
    reader?.cancel().catch(() => undefined);
  }
}

interface Answer {
  response: Response;
  /** The body as it arrives, decoded. */
  chunks: AsyncGenerator<Uint8Array<ArrayBuffer>>;
}

/**
 * Makes one request. The token goes to the hub alone.
 * @param what is asked for, for messages
 * @throws {HubRequestError} with what to do about it, for every answer that is not a success
 */
export async function request(access: HubAccess, url: URL, what: string, headers: Headers): Promise<Answer> {
  const { endpoint, id, token, signal } = access;
  throwIfAborted(signal, id);
  if (token && url.origin === new URL(endpoint).origin) {
    headers.set('Authorization', `Bearer ${token}`);
  }
  const guard = new StallGuard(signal);
  try {
    const response = await fetch(url, { headers, signal: guard.signal });
    if (!response.ok) {
      await response.body?.cancel();
      throw explain(response, access);
    }
    return { response, chunks: chunksOf(response, guard, access, what) };
  } catch (error) {
    guard.end();
    throwIfAborted(signal, id);
    throw error instanceof DownloadError ? error : noConnection(url, id, guard.hasStalled, error);
  }
}

function noConnection(url: URL, id: string, hasStalled: boolean, error: unknown): HubRequestError {
  const why = rootCause(hasStalled ? new Error('it does not answer') : error);
  return new HubRequestError(
    `cannot reach ${url.origin} for '${id}' (${why}); check the network connection` +
      ` (and HF_ENDPOINT, if you set it), or pass the directory of a checkpoint that you already have`,
    {
      transient: true,
      unreachable: /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH/.test(why),
      cause: error,
    },
  );
}

/**
 * A fetch for @huggingface/hub's questions: tries again where that may help, and bounds what comes back.
 * @param maxRequests more are an error: a listing whose pages do not end
 */
export function hubFetch(access: HubAccess, maxRequests: number): typeof fetch {
  let requests = 0;
  return async (input, init) => {
    if (++requests > maxRequests) {
      throw new HubRequestError(
        `${access.endpoint} goes on after ${maxRequests} pages about '${access.id}'; check HF_ENDPOINT`,
        { transient: false },
      );
    }
    const url = new URL(input instanceof Request ? input.url : input);
    return retrying(access, async () => {
      const { response, chunks } = await request(access, url, 'the listing', new Headers(init?.headers));
      const body = await collect(access, chunks);
      return new Response(body, { status: response.status, headers: response.headers });
    });
  };
}

/** The whole of a body. */
async function collect(access: HubAccess, chunks: Answer['chunks']): Promise<Blob> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    size += chunk.length;
    if (size > MAX_ANSWER_BYTES) {
      throw new HubRequestError(
        `${access.endpoint} gave an answer about '${access.id}' of more than ${MAX_ANSWER_BYTES} bytes; check HF_ENDPOINT`,
        { transient: false },
      );
    }
    parts.push(chunk);
  }
  return new Blob(parts);
}

/** What an error in the middle of a body means. */
function brokenOff({ id, signal }: HubAccess, what: string, error: unknown): Error {
  if (signal?.aborted) {
    return new AbortedError(`the download of '${id}' was stopped`, { cause: signal.reason });
  }
  if (error instanceof DownloadError) {
    return error;
  }
  return new HubRequestError(
    `${what} of '${id}' could not be downloaded: the connection broke (${rootCause(error)}); try again`,
    {
      transient: true,
      cause: error,
    },
  );
}

/** Runs `attempt` again, after a growing wait or the one that the server asks for, while that may help. */
export async function retrying<T>(access: HubAccess, attempt: () => Promise<T>): Promise<T> {
  for (let retries = 0; ; retries++) {
    try {
      return await attempt();
    } catch (error) {
      await waitBeforeRetry(access, error, retries);
    }
  }
}

/** @throws the error itself when trying again does not help or has been done often enough */
export async function waitBeforeRetry({ signal, id }: HubAccess, error: unknown, retries: number): Promise<void> {
  if (!(error instanceof HubRequestError && error.transient && !error.unreachable) || retries >= MAX_RETRIES) {
    throw error;
  }
  if ((error.retryAfter ?? 0) > MAX_RETRY_AFTER) {
    throw error;
  }
  await sleep(error.retryAfter === undefined ? FIRST_DELAY * 2 ** retries : 1000 * error.retryAfter, signal);
  throwIfAborted(signal, id);
}

function sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal?.addEventListener('abort', end, { once: true });
  });
}

/** fetch says 'fetch failed' and hides the reason in its causes. */
export function rootCause(error: unknown): string {
  const { cause, message, code } = Object(error) as { cause?: unknown; message?: string; code?: string };
  return cause === undefined || cause === null ? message || code || String(error) : rootCause(cause);
}

/** Seconds of a Retry-After header, which gives them or a date. */
function retryAfterOf(response: Response): number | undefined {
  const text = response.headers.get('Retry-After')?.trim();
  if (!text) {
    return undefined;
  }
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? undefined : Math.max(0, seconds);
}

function explain(response: Response, { endpoint, id, revision, token }: HubAccess): HubRequestError {
  const { status } = response;
  const code = response.headers.get('x-error-code');
  const said = response.headers.get('x-error-message')?.slice(0, 200);
  const detail = `(HTTP ${status}${said ? `: ${said}` : ''})`;
  const { host, origin } = new URL(response.url);
  const retryAfter = retryAfterOf(response);
  const failure = (message: string, transient: boolean) => new HubRequestError(message, { transient, retryAfter });
  if (origin !== new URL(endpoint).origin) {
    // Contents come from storage under signed addresses, which run out; the next try gets a new one.
    const transient = status >= 500 || status === 403 || status === 429;
    return failure(`${host} did not give a file of '${id}' ${detail}; try again`, transient);
  }
  const page = `${endpoint}/${id}`;
  const useToken = `pass {token} or set HF_TOKEN (tokens are made at ${endpoint}/settings/tokens)`;
  if (code === 'GatedRepo' || status === 403) {
    const then = token ? 'with the account of the token that was sent' : `then ${useToken}`;
    return failure(`'${id}' is gated ${detail}: accept its conditions at ${page}, ${then}`, false);
  }
  if (code === 'RevisionNotFound') {
    return failure(`'${id}' has no revision '${revision}' ${detail}; see ${page}/tree/main for what it has`, false);
  }
  if (code === 'EntryNotFound') {
    return failure(`'${id}' has no file ${new URL(response.url).pathname} ${detail}`, false);
  }
  if (status === 401 || status === 404) {
    const hint = token ? 'or the token that was sent has no access to it' : `or it is private: then ${useToken}`;
    return failure(
      `there is no directory '${id}' on this machine and no repository of that name at ${endpoint} ${detail}; ` +
        `check the spelling, ${hint}`,
      false,
    );
  }
  if (status === 429) {
    const wait = retryAfter === undefined ? 'wait a little' : `wait ${describe(Math.ceil(retryAfter))} s`;
    return failure(`${endpoint} has had too many requests ${detail}; ${wait}, or ${useToken}`, true);
  }
  const transient = status >= 500 || status === 408;
  return failure(`${endpoint} did not answer for '${id}' as expected ${detail}; try again later`, transient);
}
