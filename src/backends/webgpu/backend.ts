import * as tf from '@tensorflow/tfjs-core';
import { BackendError, InvalidArgumentError } from '../../errors.js';
import type { FloatStorageType, MemoryInfo, NativeTensorBackend, PhysicalType } from '../types.js';
import { BufferPool, type DeviceBuffer } from './buffers.js';
import type { GpuDescription, OpenDevice } from './device.js';
import { decode, encode, uploadWeights } from './numbers.js';
import { CommandQueue, type Recording } from './queue.js';
import { type Binding, bytesOf, type ElementType, shader } from './wgsl.js';
import type { Info, Work } from './work.js';

export type { Info, Operand, Work } from './work.js';

/** What a kernel needs of tfjs-core: the data id decides, shape and dtype come with the tensor. */
/** The data of one or more tensors: a buffer of the GPU, or values that no kernel has asked for yet. */
export class GpuData {
  buffer: DeviceBuffer | null = null;
  /** Kept beside the buffer for small tensors that came from JavaScript, so that they can be read at once. */
  values: tf.BackendValues | null = null;
  /** Real and imaginary part of a complex64 tensor. */
  complex: { real: Info; imag: Info } | null = null;
  refCount = 1;
  alive = true;

  constructor(
    readonly owner: WebGpuBackend,
    public dtype: tf.DataType,
    public type: ElementType,
    public size: number,
  ) {}
}

const word = new DataView(new ArrayBuffer(4));

/** The bits of a float32, to be a parameter that the shader reads by floatParam. */
export function float(x: number): number {
  word.setFloat32(0, x);
  return word.getUint32(0);
}

/** Below this many numbers, what came from JavaScript stays there, too. */
const KEPT_VALUES = 4096;

function elementType(dtype: tf.DataType): ElementType {
  if (dtype !== 'float32' && dtype !== 'int32' && dtype !== 'bool') {
    throw new BackendError(`[webgpu] kernels work on float32, int32 and bool, got ${dtype}`);
  }
  return dtype === 'float32' ? 'f32' : 'i32';
}

/** The backend 'webgpu': tensors live in buffers of a GPU, kernels are WGSL. There is no synchronous way to read them. */
export class WebGpuBackend extends tf.KernelBackend implements NativeTensorBackend {
  readonly description: GpuDescription;
  readonly queue: CommandQueue;
  readonly pool: BufferPool;
  readonly device: GPUDevice;
  private readonly foreign = new WeakMap<object, GpuData>();
  private count = 0;

  constructor(readonly opened: OpenDevice) {
    super();
    const { device, description } = opened;
    this.device = device;
    this.description = description;
    this.queue = new CommandQueue(device);
    this.pool = new BufferPool(device, description.maxBindingBytes, (buffer) => this.queue.forget(buffer));
  }

  /** The GPU is gone; a new backend has to be made. */
  get isLost(): boolean {
    return this.queue.isLost;
  }

  // --- data ----------------------------------------------------------------------------------------------------------

  data(dataId: object): GpuData {
    if (dataId instanceof GpuData && dataId.owner === this && dataId.alive) {
      return dataId;
    }
    const known = this.foreign.get(dataId);
    if (known) {
      return known;
    }
    if (dataId instanceof GpuData && tf.engine().state.tensorInfo.get(dataId)?.backend === this) {
      throw new BackendError('[webgpu] a tensor is used after its data was disposed');
    }
    tf.engine().moveData(this, dataId);
    if (dataId instanceof GpuData && dataId.owner === this) {
      return dataId;
    }
    return this.foreign.get(dataId)!;
  }

  override write(values: tf.BackendValues | null, shape: number[], dtype: tf.DataType): tf.DataId {
    const data = new GpuData(this, dtype, dtype === 'float32' ? 'f32' : 'i32', tf.util.sizeFromShape(shape));
    data.values = values;
    this.count++;
    return data;
  }

  override move(dataId: object, values: tf.BackendValues, shape: number[], dtype: tf.DataType, refCount: number): void {
    let data: GpuData;
    if (dataId instanceof GpuData && dataId.owner === this) {
      data = dataId;
      data.alive = true;
      data.dtype = dtype;
      data.size = tf.util.sizeFromShape(shape);
    } else {
      data = new GpuData(this, dtype, dtype === 'float32' ? 'f32' : 'i32', tf.util.sizeFromShape(shape));
      this.foreign.set(dataId, data);
    }
    data.type = dtype === 'float32' ? 'f32' : 'i32';
    data.refCount = refCount;
    data.values = values;
    this.count++;
  }

  /** The buffer of a tensor; copies its numbers to the GPU when they are still in JavaScript. */
  private bufferOf(data: GpuData): DeviceBuffer {
    if (!data.buffer) {
      data.type = elementType(data.dtype);
      const bytes = encode(data.values, data.type, data.size);
      // a buffer that a recorded dispatch uses would be overwritten before that dispatch runs
      data.buffer = this.upload(data.size * bytesOf(data.type));
      this.queue.write(data.buffer, bytes);
      data.values = data.size <= KEPT_VALUES ? (data.values ?? decode(bytes.buffer, data)) : null;
    }
    return data.buffer;
  }

  /** A buffer for numbers of JavaScript: a real one even while work is only recorded, since the tensor may outlive that. */
  private upload(bytes: number): DeviceBuffer {
    const { recording } = this.pool;
    this.pool.recording = false;
    try {
      return this.pool.acquire(bytes, { before: this.queue.epoch });
    } finally {
      this.pool.recording = recording;
    }
  }

  /** The numbers of a tensor that are in JavaScript, if they are. */
  hostValues(info: Info): tf.BackendValues | null {
    const data = this.data(info.dataId);
    return data.values ?? (data.buffer || data.complex ? null : decode(new ArrayBuffer(data.size * 4), data));
  }

  override readSync(dataId: object): tf.BackendValues {
    const data = this.data(dataId);
    if (data.complex) {
      const [real, imag] = [data.complex.real, data.complex.imag].map((part) => this.readSync(part.dataId));
      return tf.backend_util.mergeRealAndImagArrays(real as Float32Array, imag as Float32Array);
    }
    if (data.buffer && !data.values && data.size > 0) {
      throw new BackendError(
        '[webgpu] numbers of the GPU cannot be read synchronously: use await tensor.data() instead of dataSync()',
      );
    }
    return data.values ?? decode(new ArrayBuffer(data.size * 4), { ...data, type: 'f32' });
  }

  override async read(dataId: object): Promise<tf.BackendValues> {
    const data = this.data(dataId);
    if (data.complex) {
      const { real, imag } = data.complex;
      const parts = await Promise.all([this.read(real.dataId), this.read(imag.dataId)]);
      return tf.backend_util.mergeRealAndImagArrays(parts[0] as Float32Array, parts[1] as Float32Array);
    }
    if (data.size === 0 || !data.buffer || data.values) {
      return this.readSync(dataId);
    }
    const { dtype, size, type } = data;
    const bytes = Math.ceil((size * bytesOf(type)) / 4) * 4;
    return decode(await this.queue.read(data.buffer, bytes), { dtype, size, type });
  }

  override disposeData(dataId: object, force = false): boolean {
    const own = dataId instanceof GpuData && dataId.owner === this;
    const data = own ? dataId : this.foreign.get(dataId);
    if (!data?.alive) {
      return true;
    }
    data.refCount--;
    if (!force && data.refCount > 0) {
      return false;
    }
    if (data.complex) {
      this.disposeData(data.complex.real.dataId);
      this.disposeData(data.complex.imag.dataId);
      data.complex = null;
    }
    if (data.buffer) {
      this.pool.release(data.buffer);
    }
    data.buffer = data.values = null;
    data.alive = false;
    if (!own) {
      this.foreign.delete(dataId);
    }
    this.count--;
    return true;
  }

  override incRef(dataId: object): void {
    this.data(dataId).refCount++;
  }

  override refCount(dataId: object): number {
    const data = dataId instanceof GpuData && dataId.owner === this ? dataId : this.foreign.get(dataId);
    return data?.alive ? data.refCount : 0;
  }

  override numDataIds(): number {
    return this.count;
  }

  // --- kernels -------------------------------------------------------------------------------------------------------

  /** How a tensor's numbers lie in its buffer. */
  typeOf(info: Info): ElementType {
    const data = this.data(info.dataId);
    return data.buffer ? data.type : elementType(data.dtype);
  }

  /** A tensor with undefined numbers, for a kernel to fill. */
  empty(shape: number[], dtype: tf.DataType, type: ElementType = elementType(dtype)): Info {
    const size = tf.util.sizeFromShape(shape);
    const data = new GpuData(this, dtype, type, size);
    data.buffer = this.pool.acquire(Math.max(1, size) * bytesOf(type));
    this.count++;
    return { dataId: data, shape, dtype };
  }

  /**
   * Runs a shader.
   *
   * @throws BackendError after the GPU was lost; OutOfMemoryError when an input does not fit
   */
  run(work: Work): void {
    const operands = [...work.inputs, ...work.outputs];
    const buffers = operands.map(({ of }) => this.bufferOf(this.data(of.dataId)));
    const bindings = operands.map(({ name, of, width = 1, bits = false }, i): Binding => {
      const type = bits && this.typeOf(of) === 'f32' ? 'u32' : this.typeOf(of);
      return { name, type, width, write: i >= work.inputs.length };
    });
    const signature = bindings.map(({ name, type, width }) => `${name}:${type}x${width}`).join();
    this.queue.dispatch({
      label: work.kernel,
      key: `${work.kernel}|${signature}|${work.inputs.length}|${work.key}`,
      access: bindings.map(({ write }) => (write ? 'w' : 'r')).join(''),
      code: () => shader(bindings, work.code()),
      buffers,
      params: Uint32Array.from(work.params),
      groups: work.groups,
      flops: work.flops ?? 0,
    });
  }

  /** A result whose values are already in JavaScript. */
  makeTensorInfo(shape: number[], dtype: tf.DataType, values: tf.BackendValues | null): Info {
    return { dataId: this.write(values, shape, dtype), shape, dtype };
  }

  /** Another view of the same data: counts as a reference. */
  share(x: Info, shape: number[] = x.shape, dtype: tf.DataType = x.dtype): Info {
    this.incRef(x.dataId);
    return { dataId: x.dataId, shape, dtype };
  }

  disposeInfo(info: Info): void {
    this.disposeData(info.dataId);
  }

  /**
   * Notes the dispatches of `work` without executing them: counts them and makes their pipelines known. Tensors that it
   * makes have no numbers and must be disposed of by it (tf.tidy).
   */
  record(work: () => void): Recording {
    this.pool.recording = true;
    try {
      return this.queue.record(() => tf.tidy(work));
    } finally {
      this.pool.recording = false;
      this.pool.trim();
    }
  }

  /**
   * Compiles the shaders of `work` ahead, several at a time, without executing it.
   *
   * @param onProgress called after each with the numbers of shaders compiled and in all
   */
  async compile(work: () => void, onProgress?: (done: number, total: number) => void): Promise<void> {
    this.record(work);
    await this.queue.pipelines.compileAll(onProgress);
    this.queue.check();
  }

  /** Waits until the GPU has done all its work so far; gives back buffers that have not been needed for long. */
  async sync(): Promise<void> {
    await this.queue.sync();
    this.pool.collect();
  }

  // --- physical types ------------------------------------------------------------------------------------------------

  fromBytes(
    bytes: Uint8Array,
    storage: FloatStorageType,
    shape: number[],
    physical: PhysicalType,
    permutation?: number[],
  ): tf.Tensor {
    const type = this.storedAs(physical);
    const size = tf.util.sizeFromShape(shape);
    const expected = size * (storage === 'F32' ? 4 : 2);
    if (bytes.byteLength !== expected) {
      throw new InvalidArgumentError(
        `[webgpu] shape [${shape}] of ${storage} needs ${expected} bytes, got ${bytes.byteLength}`,
      );
    }
    const result = permutation ? permutation.map((axis) => shape[axis]!) : [...shape];
    const data = new GpuData(this, 'float32', type, size);
    data.buffer = this.pool.acquire(Math.max(1, size) * bytesOf(type), { exact: true, before: this.queue.epoch });
    this.count++;
    const tensor = tf.engine().makeTensorFromDataId(data, result, 'float32', this);
    uploadWeights(this, tensor, bytes, storage, shape, permutation);
    return tensor;
  }

  private storedAs(physical: PhysicalType): ElementType {
    if (physical === 'float32') {
      return 'f32';
    }
    if (physical !== 'float16') {
      throw new InvalidArgumentError(`[webgpu] GPUs store float32 and float16 here, got ${physical}; use float16`);
    }
    if (!this.description.hasFloat16) {
      throw new BackendError(
        `[webgpu] ${this.description.description} has no float16 in shaders (shader-f16); use float32`,
      );
    }
    return 'f16';
  }

  physicalType(tensor: tf.Tensor): PhysicalType {
    const { dtype } = this.data(tensor.dataId);
    if (dtype !== 'float32') {
      throw new InvalidArgumentError(`[webgpu] physical types belong to float32 tensors, got ${dtype}`);
    }
    return this.typeOf(tensor) === 'f16' ? 'float16' : 'float32';
  }

  toPhysical<T extends tf.Tensor>(tensor: T, physical: PhysicalType): T {
    this.storedAs(physical);
    return tf.engine().runKernel('PhysicalCast', { x: tensor }, { physical }) as tf.Tensor as T;
  }

  // --- the rest of KernelBackend -------------------------------------------------------------------------------------

  override async time(work: () => void): Promise<tf.BackendTimingInfo> {
    await this.sync();
    const start = performance.now();
    work();
    await this.sync();
    return { kernelMs: performance.now() - start };
  }

  override timerAvailable(): boolean {
    return false;
  }

  override memory(): { unreliable: boolean; numBytesNative: number } {
    return { unreliable: false, numBytesNative: this.pool.bytesInUse };
  }

  memoryInfo(): MemoryInfo {
    const { bytesInUse, poolBytes, peakBytes, limitBytes } = this.pool;
    const freeBytes = limitBytes > 0 ? Math.max(0, limitBytes - bytesInUse) : Number.POSITIVE_INFINITY;
    return { bytesInUse, poolBytes, peakBytes, limitBytes, freeBytes };
  }

  resetPeak(): void {
    this.pool.peakBytes = this.pool.bytesInUse;
  }

  setMemoryLimit(bytes: number): void {
    this.pool.limitBytes = bytes;
  }

  override floatPrecision(): 16 | 32 {
    return 32;
  }

  override epsilon(): number {
    return 1e-7;
  }

  /** tfjs-core calls this when it forgets its backends and may start this one again: the GPU stays open. */
  override dispose(): void {
    this.pool.trim();
  }
}
