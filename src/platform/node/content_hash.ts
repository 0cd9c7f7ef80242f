import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';

/** What the hub calls a content: the SHA-256 of an LFS file, git's SHA-1 of another. */
const NAME = /^([0-9a-f]{64}|[0-9a-f]{40})$/;

export const isContentName = (etag: string): boolean => NAME.test(etag);

/** A hash whose hexadecimal digest is the name of a content of `size` bytes. */
export function hashFor(etag: string, size: number): Hash {
  return etag.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
}

/** Feeds a file's bytes to a hash, as far as they go. */
export async function hashFile(hash: Hash, path: string): Promise<Hash> {
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
    hash.update(chunk as Buffer);
  }
  return hash;
}
