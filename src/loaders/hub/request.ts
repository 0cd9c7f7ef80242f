import { AbortedError, DownloadError } from '../../errors.js';

/** A request to the hub that failed; `transient` when trying again may help (no connection, a busy or broken server). */
export class HubRequestError extends DownloadError {
  constructor(
    message: string,
    readonly transient: boolean,
    options?: ErrorOptions,
  ) {
    super(message, options);
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

/**
 * A fetch for @huggingface/hub that sends the token to the hub alone, stops with the signal and throws
 * HubRequestError, with what to do about it, for every answer that is not a success.
 */
export function hubFetch(access: HubAccess): typeof fetch {
  const { endpoint, id, token, signal } = access;
  const { origin } = new URL(endpoint);
  return async (input, init) => {
    throwIfAborted(signal, id);
    const url = new URL(input instanceof Request ? input.url : input);
    const headers = new Headers(init?.headers);
    if (token && url.origin === origin) {
      headers.set('Authorization', `Bearer ${token}`);
    }
    let response: Response;
    try {
      response = await fetch(url, { ...init, headers, signal });
    } catch (error) {
      throwIfAborted(signal, id);
      throw new HubRequestError(
        `cannot reach ${url.origin} for '${id}' (${rootCause(error)}); check the network connection` +
          ` (and HF_ENDPOINT, if you set it), or pass the directory of a checkpoint that you already have`,
        true,
        { cause: error },
      );
    }
    if (!response.ok) {
      await response.body?.cancel();
      throw explain(response, access);
    }
    return response;
  };
}

/** fetch says 'fetch failed' and hides the reason in its causes. */
export function rootCause(error: unknown): string {
  const { cause, message, code } = Object(error) as { cause?: unknown; message?: string; code?: string };
  return cause === undefined || cause === null ? message || code || String(error) : rootCause(cause);
}

function explain(response: Response, { endpoint, id, revision, token }: HubAccess): HubRequestError {
  const { status } = response;
  const code = response.headers.get('x-error-code');
  const said = response.headers.get('x-error-message');
  const detail = `(HTTP ${status}${said ? `: ${said}` : ''})`;
  const { host, origin } = new URL(response.url);
  if (origin !== new URL(endpoint).origin) {
    // Contents come from storage under signed addresses, which run out; the next try gets a new one.
    return new HubRequestError(
      `${host} did not give a file of '${id}' ${detail}; try again`,
      status >= 500 || status === 403,
    );
  }
  const page = `${endpoint}/${id}`;
  const useToken = `pass {token} or set HF_TOKEN (tokens are made at ${endpoint}/settings/tokens)`;
  if (code === 'GatedRepo' || status === 403) {
    const then = token ? 'with the account of the token that was sent' : `then ${useToken}`;
    return new HubRequestError(`'${id}' is gated ${detail}: accept its conditions at ${page}, ${then}`, false);
  }
  if (code === 'RevisionNotFound') {
    return new HubRequestError(
      `'${id}' has no revision '${revision}' ${detail}; see ${page}/tree/main for what it has`,
      false,
    );
  }
  if (code === 'EntryNotFound') {
    return new HubRequestError(`'${id}' has no file ${new URL(response.url).pathname} ${detail}`, false);
  }
  if (status === 401 || status === 404) {
    const hint = token ? 'or the token that was sent has no access to it' : `or it is private: then ${useToken}`;
    return new HubRequestError(
      `there is no directory '${id}' on this machine and no repository of that name at ${endpoint} ${detail}; ` +
        `check the spelling, ${hint}`,
      false,
    );
  }
  if (status === 429) {
    return new HubRequestError(`${endpoint} has had too many requests ${detail}; wait a little, or ${useToken}`, true);
  }
  return new HubRequestError(
    `${endpoint} did not answer for '${id}' as expected ${detail}; try again later`,
    status >= 500 || status === 408,
  );
}
