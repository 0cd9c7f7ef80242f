import { fstatSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import type { ByteSource } from '../types.js';

/** Most bytes asked of the system in one read; Node refuses 2 GiB and more. */
const MAX_READ_BYTES = 2 ** 30;

/** An open file. */
class FileSource implements ByteSource {
  constructor(
    private readonly handle: FileHandle,
    readonly size: number,
  ) {}

  async read(position: number, length: number): Promise<Uint8Array> {
    const bytes = Buffer.allocUnsafeSlow(length);
    for (let done = 0; done < length; ) {
      const ask = Math.min(length - done, MAX_READ_BYTES);
      const { bytesRead } = await this.handle.read(bytes, done, ask, position + done);
      done += checkCount(bytesRead, done, length);
    }
    return new Uint8Array(bytes.buffer, 0, length);
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

function checkCount(count: number, done: number, length: number): number {
  if (count === 0) {
    throw new Error(`the file ended after ${done} of ${length} bytes; was it changed meanwhile?`);
  }
  return count;
}

/** @throws Error with the system's code when there is no such file or it is not a regular one */
export async function openFile(path: string): Promise<ByteSource> {
  const handle = await open(path, 'r');
  const stats = fstatSync(handle.fd);
  if (!stats.isFile()) {
    await handle.close();
    throw new Error(stats.isDirectory() ? 'it is a directory' : 'it is not a regular file');
  }
  return new FileSource(handle, stats.size);
}
