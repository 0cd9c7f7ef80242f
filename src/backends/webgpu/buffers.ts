import { OutOfMemoryError } from '../../errors.js';
import { USAGE } from './device.js';

/** A whole GPUBuffer; kernels may bind it to its end, past the tensor's last number. */
export interface DeviceBuffer {
  readonly id: number;
  /** Null while work is only recorded. */
  readonly gpu: GPUBuffer | null;
  /** Bytes of the GPUBuffer. */
  readonly bytes: number;
  /** Whether it comes back to the pool: weights do not, they have a size of their own. */
  readonly pooled: boolean;
  /** Number of the submission that last used it; see `acquire`. */
  lastUse: number;
  /** Number of the synchronisation at which it was put back. */
  idleSince: number;
  /** Keys of the bind groups that name it. */
  readonly groups: Set<string>;
}

/** Sizes are rounded up to one of 8 per power of two, so that at most an eighth is lost. */
export function sizeClass(bytes: number): number {
  const step = 2 ** Math.max(8, Math.floor(Math.log2(Math.max(bytes, 1))) - 3);
  return Math.ceil(Math.max(bytes, 1) / step) * step;
}

/** A buffer that is a little larger will do: up to two classes. */
function classesFrom(bytes: number): number[] {
  const first = sizeClass(bytes);
  const second = sizeClass(first + 1);
  return [first, second, sizeClass(second + 1)];
}

/** Free buffers that were not needed for so many synchronisations (steps of a picture) are given back. */
const IDLE_SYNCS = 3;
const align = (bytes: number) => Math.max(16, Math.ceil(bytes / 16) * 16);

/**
 * GPUBuffers of tensors, kept for reuse by size. A dispatch may not bind one buffer both for reading and for writing, so
 * every tensor has a buffer of its own and none is cut out of a larger one.
 */
export class BufferPool {
  bytesInUse = 0;
  poolBytes = 0;
  peakBytes = 0;
  limitBytes = 0;
  /** Buffers are only counted, not made: see CommandQueue.record. */
  recording = false;
  private readonly free = new Map<number, DeviceBuffer[]>();
  private nextId = 0;
  private syncs = 0;

  constructor(
    private readonly device: GPUDevice,
    private readonly maxBytes: number,
    private readonly onDestroy: (buffer: DeviceBuffer) => void,
  ) {}

  /**
   * A buffer of at least that many bytes with undefined content.
   *
   * @param before only take one that was last used by a submission before this one. Writes of the queue overtake dispatches
   *   that are recorded and not submitted, so a buffer that those use cannot be written yet.
   * @param exact for weights, which live long: no rounding, no reuse
   * @throws OutOfMemoryError above the limit or above what the adapter can bind
   */
  acquire(bytes: number, { before = Number.POSITIVE_INFINITY, exact = false } = {}): DeviceBuffer {
    if (bytes > this.maxBytes) {
      throw new OutOfMemoryError(
        `[webgpu] a tensor of ${bytes} bytes does not fit: this GPU binds at most ${this.maxBytes} bytes at a time`,
      );
    }
    const buffer = (exact ? undefined : this.take(bytes, before)) ?? this.create(bytes, exact);
    this.bytesInUse += buffer.bytes;
    this.peakBytes = Math.max(this.peakBytes, this.bytesInUse);
    return buffer;
  }

  private take(bytes: number, before: number): DeviceBuffer | undefined {
    for (const size of classesFrom(bytes)) {
      const list = this.free.get(size);
      const at =
        list?.findLastIndex((buffer) => buffer.lastUse < before && (buffer.gpu === null) === this.recording) ?? -1;
      if (at >= 0 && !this.exceeds(size)) {
        this.poolBytes -= size;
        return list!.splice(at, 1)[0]!;
      }
    }
    return undefined;
  }

  private exceeds(bytes: number): boolean {
    return this.limitBytes > 0 && this.bytesInUse + bytes > this.limitBytes;
  }

  private create(wanted: number, exact: boolean): DeviceBuffer {
    const bytes = exact ? align(wanted) : Math.min(sizeClass(wanted), align(this.maxBytes));
    if (this.exceeds(bytes)) {
      throw new OutOfMemoryError(
        `[webgpu] ${bytes} bytes more would exceed the limit of ${this.limitBytes} bytes; ${this.bytesInUse} are in use`,
      );
    }
    if (this.limitBytes > 0 && this.bytesInUse + this.poolBytes + bytes > this.limitBytes) {
      this.trim();
    }
    const usage = USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST;
    const gpu = this.recording ? null : this.device.createBuffer({ size: bytes, usage });
    return { id: this.nextId++, gpu, bytes, pooled: !exact, lastUse: -1, idleSince: 0, groups: new Set() };
  }

  release(buffer: DeviceBuffer): void {
    this.bytesInUse -= buffer.bytes;
    if (!buffer.pooled) {
      this.destroy(buffer);
      return;
    }
    const list = this.free.get(buffer.bytes);
    buffer.idleSince = this.syncs;
    this.poolBytes += buffer.bytes;
    if (list) {
      list.push(buffer);
    } else {
      this.free.set(buffer.bytes, [buffer]);
    }
  }

  /** Called when the GPU has done all its work: gives back what has been idle for long. */
  collect(): void {
    this.syncs++;
    this.drop((buffer) => this.syncs - buffer.idleSince > IDLE_SYNCS);
  }

  /** Gives back every free buffer. */
  trim(): void {
    this.drop(() => true);
  }

  private drop(which: (buffer: DeviceBuffer) => boolean): void {
    for (const [size, list] of this.free) {
      const kept = list.filter((buffer) => !which(buffer));
      list.filter(which).forEach((buffer) => {
        this.poolBytes -= buffer.bytes;
        this.destroy(buffer);
      });
      if (kept.length > 0) {
        this.free.set(size, kept);
      } else {
        this.free.delete(size);
      }
    }
  }

  private destroy(buffer: DeviceBuffer): void {
    this.onDestroy(buffer);
    buffer.gpu?.destroy();
  }
}
