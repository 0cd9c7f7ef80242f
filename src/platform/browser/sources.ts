import type { ByteSource } from '../types.js';

/** An error that says, as Node's do, that there is no file. */
export function notFound(path: string): Error {
  return Object.assign(new Error(`there is no file '${path}'`), { code: 'ENOENT' });
}

function ended(done: number, length: number): Error {
  return new Error(`the file ended after ${done} of ${length} bytes; was it changed meanwhile?`);
}

/** A Blob: a file that the user chose, or one of the page's private file system. */
export function blobSource(blob: Blob): ByteSource {
  return {
    size: blob.size,
    async read(position, length) {
      const bytes = new Uint8Array(await blob.slice(position, position + length).arrayBuffer());
      if (bytes.length < length) {
        throw ended(bytes.length, length);
      }
      return bytes;
    },
    close: async () => undefined,
  };
}

/** The answer to a request; an error where it is not a success. */
export async function request(url: string, init: RequestInit = {}): Promise<Response> {
  const response = await fetch(url, init);
  if (response.status === 404 || response.status === 410) {
    throw notFound(url);
  }
  if (!response.ok) {
    throw new Error(`the server answered ${response.status} ${response.statusText}`.trim());
  }
  return response;
}

/** A file at an address, read by ranges; whole, once, where the server has none. */
export async function urlSource(url: string): Promise<ByteSource> {
  const head = await request(url, { method: 'HEAD' });
  const size = Number(head.headers.get('Content-Length') ?? Number.NaN);
  const isEncoded = head.headers.has('Content-Encoding');
  let whole = Number.isNaN(size) || isEncoded ? blobSource(await (await request(url)).blob()) : undefined;
  return {
    size: whole?.size ?? size,
    async read(position, length) {
      if (!whole && length > 0) {
        const response = await request(url, { headers: { Range: `bytes=${position}-${position + length - 1}` } });
        if (response.status === 206) {
          const bytes = new Uint8Array(await response.arrayBuffer());
          if (bytes.length !== length) {
            throw ended(bytes.length, length);
          }
          return bytes;
        }
        whole = blobSource(await response.blob());
      }
      return whole ? whole.read(position, length) : new Uint8Array(0);
    },
    async close() {
      whole = undefined;
    },
  };
}
