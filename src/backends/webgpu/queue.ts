import { BackendError, OutOfMemoryError } from '../../errors.js';
import type { DeviceBuffer } from './buffers.js';
import { MAP_READ, USAGE } from './device.js';
import { PARAMS_BYTES, PipelineCache, type PipelineSource } from './pipelines.js';

/** One run of a shader. */
export interface Dispatch extends PipelineSource {
  buffers: DeviceBuffer[];
  params: Uint32Array;
  groups: [number, number, number];
  /** Estimated floating-point operations. */
  flops: number;
}

/** What was recorded without being executed. */
export interface Recording {
  dispatches: number;
  /** Submissions that the work would be split into. */
  submissions: number;
  /** Dispatches by kernel. */
  byKernel: Record<string, number>;
  /** The largest estimate of one dispatch. */
  maxFlops: number;
}

const DISPATCHES_PER_SUBMISSION = 64;
/** About 100 ms of a GPU that does 1 TFLOP/s: systems take the GPU away from who holds it for 2 s. */
const FLOPS_PER_SUBMISSION = 1e11;

/** Records dispatches in one compute pass and submits them in large pieces. */
export class CommandQueue {
  readonly pipelines: PipelineCache;
  /** Number of the submission that is being recorded. */
  epoch = 0;
  private readonly params: GPUBuffer;
  private readonly staging = new Uint32Array((DISPATCHES_PER_SUBMISSION * PARAMS_BYTES) / 4);
  private readonly bindGroups = new Map<string, GPUBindGroup>();
  private encoder: GPUCommandEncoder | null = null;
  private pass: GPUComputePassEncoder | null = null;
  private count = 0;
  private flops = 0;
  private failure: Error | null = null;
  private lost: BackendError | null = null;
  private recording: Recording | null = null;

  constructor(private readonly device: GPUDevice) {
    this.pipelines = new PipelineCache(device);
    const size = this.staging.byteLength;
    this.params = device.createBuffer({ label: 'params', size, usage: USAGE.UNIFORM | USAGE.COPY_DST });
    device.addEventListener('uncapturederror', ({ error }) => {
      this.failure ??= typed(error);
    });
    void device.lost.then(({ reason, message }) => {
      const how = "it was lost; pickBackend('webgpu') starts it again, and models must be loaded again";
      this.lost = new BackendError(`[webgpu] the GPU stopped (${reason}: ${message}): ${how}`);
    });
  }

  get isLost(): boolean {
    return this.lost !== null;
  }

  /** Throws what the GPU has reported since the last call. */
  check(): void {
    const error = this.lost ?? this.failure;
    this.failure = null;
    if (error) {
      throw error;
    }
  }

  dispatch(work: Dispatch): void {
    if (this.lost) {
      throw this.lost;
    }
    const pipeline = this.pipelines.find(work);
    if (this.recording) {
      this.note(work, this.recording);
      return;
    }
    if (this.count > 0 && this.flops + work.flops > FLOPS_PER_SUBMISSION) {
      this.flush();
    }
    this.encoder ??= this.device.createCommandEncoder();
    this.pass ??= this.encoder.beginComputePass();
    this.staging.fill(0, (this.count * PARAMS_BYTES) / 4, ((this.count + 1) * PARAMS_BYTES) / 4);
    this.staging.set(work.params, (this.count * PARAMS_BYTES) / 4);
    this.pass.setPipeline(this.pipelines.compiled(pipeline));
    this.pass.setBindGroup(0, this.bindGroup(pipeline.layout, work.buffers), [this.count * PARAMS_BYTES]);
    this.pass.dispatchWorkgroups(...work.groups);
    for (const buffer of work.buffers) {
      buffer.lastUse = this.epoch;
    }
    this.flops += work.flops;
    if (++this.count === DISPATCHES_PER_SUBMISSION) {
      this.flush();
    }
  }

  private note({ label, flops }: Dispatch, recording: Recording): void {
    recording.dispatches++;
    recording.byKernel[label] = (recording.byKernel[label] ?? 0) + 1;
    recording.maxFlops = Math.max(recording.maxFlops, flops);
    if (this.count === DISPATCHES_PER_SUBMISSION || (this.count > 0 && this.flops + flops > FLOPS_PER_SUBMISSION)) {
      recording.submissions++;
      this.count = this.flops = 0;
    }
    this.count++;
    this.flops += flops;
  }

  private bindGroup(layout: { id: number; group: GPUBindGroupLayout }, buffers: DeviceBuffer[]): GPUBindGroup {
    const key = `${layout.id}:${buffers.map(({ id }) => id).join()}`;
    let group = this.bindGroups.get(key);
    if (!group) {
      const storage = buffers.map((buffer, i) => ({ binding: i + 1, resource: { buffer: resourceOf(buffer) } }));
      const params = { binding: 0, resource: { buffer: this.params, size: PARAMS_BYTES } };
      group = this.device.createBindGroup({ layout: layout.group, entries: [params, ...storage] });
      this.bindGroups.set(key, group);
      for (const buffer of buffers) {
        buffer.groups.add(key);
      }
    }
    return group;
  }

  /** Forgets the bind groups of a buffer that is about to be destroyed; the work that uses it is submitted first. */
  forget(buffer: DeviceBuffer): void {
    if (buffer.lastUse === this.epoch) {
      this.flush();
    }
    for (const key of buffer.groups) {
      this.bindGroups.delete(key);
    }
  }

  /** Submits what has been recorded. */
  flush(): void {
    if (!this.encoder || this.recording) {
      return;
    }
    this.pass?.end();
    this.device.queue.writeBuffer(this.params, 0, this.staging, 0, (this.count * PARAMS_BYTES) / 4);
    this.device.queue.submit([this.encoder.finish()]);
    this.encoder = this.pass = null;
    this.count = this.flops = 0;
    this.epoch++;
  }

  /** Writes bytes (a multiple of 4) to a buffer that no recorded dispatch uses. */
  write(buffer: DeviceBuffer, bytes: ArrayBufferView): void {
    if (this.lost) {
      throw this.lost;
    }
    if (buffer.gpu) {
      this.device.queue.writeBuffer(buffer.gpu, 0, bytes.buffer, bytes.byteOffset, bytes.byteLength);
    }
  }

  /** Fills whole words. */
  clear(buffer: DeviceBuffer): void {
    if (this.recording || !buffer.gpu) {
      return;
    }
    this.encoder ??= this.device.createCommandEncoder();
    this.pass?.end();
    this.pass = null;
    this.encoder.clearBuffer(buffer.gpu);
    buffer.lastUse = this.epoch;
  }

  /** The first bytes (a multiple of 4) of a buffer, once all work recorded so far is done. */
  async read(buffer: DeviceBuffer, bytes: number): Promise<ArrayBuffer> {
    this.check();
    const source = resourceOf(buffer);
    const target = this.device.createBuffer({ size: bytes, usage: USAGE.MAP_READ | USAGE.COPY_DST });
    try {
      this.encoder ??= this.device.createCommandEncoder();
      this.pass?.end();
      this.pass = null;
      this.encoder.copyBufferToBuffer(source, 0, target, 0, bytes);
      this.flush();
      await target.mapAsync(MAP_READ).catch((error: unknown) => {
        this.check();
        throw new BackendError(`[webgpu] reading failed: ${(error as Error).message}`, { cause: error });
      });
      this.check();
      return target.getMappedRange().slice(0);
    } finally {
      target.destroy();
    }
  }

  /** Waits until the GPU has done all work recorded so far. */
  async sync(): Promise<void> {
    this.check();
    this.flush();
    await this.device.queue.onSubmittedWorkDone();
    this.check();
  }

  /** Notes the dispatches of `work` without executing any; their pipelines are known afterwards and can be compiled. */
  record(work: () => void): Recording {
    this.flush();
    const recording: Recording = { dispatches: 0, submissions: 1, byKernel: {}, maxFlops: 0 };
    this.recording = recording;
    try {
      work();
    } finally {
      this.recording = null;
      this.count = this.flops = 0;
    }
    return recording;
  }
}

function resourceOf(buffer: DeviceBuffer): GPUBuffer {
  if (!buffer.gpu) {
    throw new BackendError('[webgpu] a tensor that was only recorded has no numbers');
  }
  return buffer.gpu;
}

function typed(error: GPUError): Error {
  const message = error.message.trim();
  return error.constructor.name === 'GPUOutOfMemoryError'
    ? new OutOfMemoryError(`[webgpu] the GPU has no memory left: ${message}`)
    : new BackendError(`[webgpu] ${message}`);
}
