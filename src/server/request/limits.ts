import { RequestError } from '../errors.js';
import type { DrawRequest } from './draw_request.js';

/** What one request, and all requests together, may take. */
export interface Limits {
  /** Bytes of a request's body. */
  bodyBytes: number;
  /** Pixels of a picture that is drawn, after enlarging. */
  pixels: number;
  /** Pixels of an uploaded picture. */
  uploadPixels: number;
  steps: number;
  /** Pictures of a request. */
  pictures: number;
  /** Jobs that wait. */
  queue: number;
  /** Seconds that results are kept, and bytes of all of them together. */
  resultSeconds: number;
  resultBytes: number;
}

export const DEFAULT_LIMITS: Limits = {
  bodyBytes: 32 * 2 ** 20,
  pixels: 2048 * 2048,
  uploadPixels: 8192 * 8192,
  steps: 150,
  pictures: 10,
  queue: 200,
  resultSeconds: 3600,
  resultBytes: 512 * 2 ** 20,
};

/** @throws RequestError for a request that asks for more than the limits allow, saying which one */
export function checkLimits(request: DrawRequest, limits: Limits): void {
  const { steps = 0, n = 1, width, height, hires } = request;
  const edges = [width ?? height ?? 0, height ?? width ?? 0] as const;
  const scale = hires?.scale ?? 1;
  const rows: [name: string, asked: number, limit: number][] = [
    ['steps', Math.max(steps, hires?.steps ?? 0), limits.steps],
    ['n', n, limits.pictures],
    ['width x height', edges[0] * edges[1] * scale * scale, limits.pixels],
  ];
  for (const [name, asked, limit] of rows) {
    if (asked > limit) {
      throw new RequestError(`${name} is ${asked}, more than this server's limit of ${limit}`);
    }
  }
}
