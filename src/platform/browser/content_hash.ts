import { Sha256 } from './sha256.js';

/** What the hub calls a content: the SHA-256 of an LFS file, git's SHA-1 of another. */
export const isContentName = (etag: string): boolean => /^([0-9a-f]{64}|[0-9a-f]{40})$/.test(etag);

/** A hash that is fed piece by piece. */
export interface ContentHash {
  update(bytes: Uint8Array): void;
  digest(): Promise<string>;
}

/** Files that are not LFS files are small: their SHA-1 is the browser's own, of all bytes at once. */
class GitHash implements ContentHash {
  private readonly parts: Uint8Array<ArrayBuffer>[];

  constructor(size: number) {
    this.parts = [new TextEncoder().encode(`blob ${size}\0`)];
  }

  update(bytes: Uint8Array): void {
    this.parts.push(bytes.slice());
  }

  async digest(): Promise<string> {
    const hash = await crypto.subtle.digest('SHA-1', await new Blob(this.parts).arrayBuffer());
    return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, '0')).join('');
  }
}

class LfsHash implements ContentHash {
  private readonly hash = new Sha256();

  update(bytes: Uint8Array): void {
    this.hash.update(bytes);
  }

  async digest(): Promise<string> {
    return this.hash.digest();
  }
}

/** A hash whose digest is the name of a content of `size` bytes. */
export const hashFor = (etag: string, size: number): ContentHash =>
  etag.length === 64 ? new LfsHash() : new GitHash(size);
