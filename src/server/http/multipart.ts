import type { FastifyRequest } from 'fastify';
import { RequestError } from '../errors.js';
import type { Limits } from '../request/limits.js';

declare module 'fastify' {
  interface FastifyRequest {
    /** Files of a form by the names of their fields. */
    uploads: Record<string, Uint8Array[]>;
  }
}

const MAX_FILES = 16;
const MAX_FIELDS = 50;

/** Reads a form: its texts become the body, its files `request.uploads`. Nothing is written to a disk. */
export function readForm({ bodyBytes }: Limits): (request: FastifyRequest) => Promise<void> {
  const limits = { fileSize: bodyBytes, files: MAX_FILES, fields: MAX_FIELDS, fieldSize: 100_000 };
  return async (request) => {
    if (!request.isMultipart()) {
      throw new RequestError('this route takes multipart/form-data', 415);
    }
    const body: Record<string, unknown> = {};
    request.uploads = {};
    let left = bodyBytes;
    for await (const part of request.parts({ limits })) {
      if (part.type === 'file') {
        const bytes = await part.toBuffer();
        left -= bytes.length;
        if (left < 0) {
          throw new RequestError(`the pictures have more than ${bodyBytes} bytes`, 413);
        }
        request.uploads[part.fieldname] = [...(request.uploads[part.fieldname] ?? []), bytes];
      } else {
        body[part.fieldname] = part.value;
      }
    }
    request.body = body;
  };
}
