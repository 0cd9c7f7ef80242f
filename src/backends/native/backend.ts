import * as tf from '@tensorflow/tfjs-core';
import { BackendError, InvalidArgumentError, OutOfMemoryError } from '../../errors.js';
import type { FloatStorageType, MemoryInfo, NativeTensorBackend, PhysicalType } from '../types.js';
import type { Attributes, NativeAddon } from './addon.js';
import { NATIVE_TYPES } from './native_types.js';

const STORAGE: Record<FloatStorageType, number> = { F32: 0, BF16: 1, F16: 2 };
const CODES = { float32: 0, bfloat16: 1, float16: 2, int32: 3, bool: 4 } as const;
const EXCHANGE_MARGIN = 16;

/** The data of one or more tensors: numbers in native memory, or values that no kernel has asked for yet. */
export class NativeData {
  /** Native handle, -1 while the numbers are in `values`. */
  handle = -1;
  values: tf.BackendValues | null = null;
  /** Real and imaginary part of a complex64 tensor. */
  complex: { real: tf.TensorInfo; imag: tf.TensorInfo } | null = null;
  refCount = 1;
  alive = true;

  constructor(
    readonly owner: NativeBackend,
    public dtype: tf.DataType,
    public size: number,
  ) {}
}

/** What a kernel of this backend needs of tfjs-core: the data id decides, shape and dtype come with the tensor. */
export type Info = tf.TensorInfo;

/** A backend whose tensors live in the memory of a native addon, where the kernels run too. */
export class NativeBackend extends tf.KernelBackend implements NativeTensorBackend {
  private readonly foreign = new WeakMap<object, NativeData>();
  private readonly kernels = new Map<string, number>();
  private readonly exchange: Float64Array;
  private count = 0;

  constructor(
    readonly name: string,
    readonly addon: NativeAddon,
  ) {
    super();
    this.exchange = addon.exchange;
    addon.kernels.forEach((name, id) => {
      this.kernels.set(name, id);
    });
  }

  // --- data ----------------------------------------------------------------------------------------------------------

  data(dataId: object): NativeData {
    if (dataId instanceof NativeData && dataId.owner === this && dataId.alive) return dataId;
    const known = this.foreign.get(dataId);
    if (known) return known;
    if (dataId instanceof NativeData && tf.engine().state.tensorInfo.get(dataId)?.backend === this) {
      throw new BackendError(`[${this.name}] a tensor is used after its data was disposed`);
    }
    tf.engine().moveData(this, dataId);
    if (dataId instanceof NativeData && dataId.owner === this) return dataId;
    return this.foreign.get(dataId)!;
  }

  override write(values: tf.BackendValues | null, shape: number[], dtype: tf.DataType): tf.DataId {
    const data = new NativeData(this, dtype, tf.util.sizeFromShape(shape));
    data.values = values;
    this.count++;
    return data;
  }

  override move(dataId: object, values: tf.BackendValues, shape: number[], dtype: tf.DataType, refCount: number): void {
    let data: NativeData;
    if (dataId instanceof NativeData && dataId.owner === this) {
      data = dataId;
      data.alive = true;
      data.dtype = dtype;
      data.size = tf.util.sizeFromShape(shape);
    } else {
      data = new NativeData(this, dtype, tf.util.sizeFromShape(shape));
      this.foreign.set(dataId, data);
    }
    data.refCount = refCount;
    data.values = values;
    this.count++;
  }

  /** Native handle of the numbers; copies them to native memory when they are still in JavaScript. */
  private handleOf(data: NativeData): number {
    if (data.handle < 0) data.handle = this.upload(data);
    return data.handle;
  }

  private upload(data: NativeData): number {
    const { dtype, size } = data;
    if (dtype !== 'float32' && dtype !== 'int32' && dtype !== 'bool') {
      throw new BackendError(`[${this.name}] native kernels work on float32, int32 and bool, got ${dtype}`);
    }
    const target = CODES[dtype];
    let bytes: ArrayBufferView;
    let storage: number;
    if (data.values instanceof Float32Array) {
      bytes = data.values;
      storage = CODES.float32;
    } else if (data.values instanceof Int32Array) {
      bytes = data.values;
      storage = CODES.int32;
    } else if (dtype === 'bool' && (data.values === null || data.values instanceof Uint8Array)) {
      bytes = data.values ?? new Uint8Array(size);
      storage = CODES.bool;
    } else {
      bytes = data.values ? Float32Array.from(data.values as ArrayLike<number>) : new Float32Array(size);
      storage = CODES.float32;
    }
    const handle = this.guard(() => this.addon.create(bytes, storage, target, [size]));
    data.values = null;
    return handle;
  }

  private targetArray(data: NativeData): Float32Array | Int32Array | Uint8Array {
    if (data.dtype === 'float32') return new Float32Array(data.size);
    return data.dtype === 'int32' ? new Int32Array(data.size) : new Uint8Array(data.size);
  }

  override readSync(dataId: object): tf.BackendValues {
    const data = this.data(dataId);
    if (data.complex) {
      const [real, imag] = [data.complex.real, data.complex.imag].map((part) => this.readSync(part.dataId));
      return tf.backend_util.mergeRealAndImagArrays(real as Float32Array, imag as Float32Array);
    }
    if (data.handle < 0) return data.values ?? this.targetArray(data);
    const target = this.targetArray(data);
    this.guard(() => this.addon.readSync(data.handle, target));
    return target;
  }

  override async read(dataId: object): Promise<tf.BackendValues> {
    const data = this.data(dataId);
    if (data.complex || data.handle < 0 || data.size < 4096) return this.readSync(dataId);
    try {
      return await this.addon.read(data.handle);
    } catch (error) {
      throw typed(error);
    }
  }

  override disposeData(dataId: object, force = false): boolean {
    const own = dataId instanceof NativeData && dataId.owner === this;
    const data = own ? dataId : this.foreign.get(dataId);
    if (!data?.alive) return true;
    data.refCount--;
    if (!force && data.refCount > 0) return false;
    if (data.complex) {
      this.disposeData(data.complex.real.dataId);
      this.disposeData(data.complex.imag.dataId);
      data.complex = null;
    }
    if (data.handle >= 0) this.addon.dispose(data.handle);
    data.handle = -1;
    data.values = null;
    data.alive = false;
    if (!own) this.foreign.delete(dataId);
    this.count--;
    return true;
  }

  override incRef(dataId: object): void {
    this.data(dataId).refCount++;
  }

  override refCount(dataId: object): number {
    const data = dataId instanceof NativeData && dataId.owner === this ? dataId : this.foreign.get(dataId);
    return data?.alive ? data.refCount : 0;
  }

  override numDataIds(): number {
    return this.count;
  }

  // --- kernels -------------------------------------------------------------------------------------------------------

  /**
   * Runs a native kernel.
   *
   * @param inputs by position, null for optional ones that are not given
   * @throws OutOfMemoryError; BackendError naming the kernel, its inputs and what it expected
   */
  run(kernel: string, inputs: readonly (Info | null | undefined)[], attributes?: Attributes): Info[] {
    const id = this.kernels.get(kernel);
    if (id === undefined) throw new BackendError(`[${kernel}] the native addon has no such kernel`);
    // Handles first: making one may use the exchange array no more than reading the numbers does, but may throw.
    const { exchange } = this;
    const handles = inputs.map((input) => (input ? this.handleOf(this.data(input.dataId)) : -1));
    let at = 0;
    exchange[at++] = inputs.length;
    for (let i = 0; i < inputs.length; i++) {
      const shape = inputs[i]?.shape ?? [];
      if (at + shape.length + EXCHANGE_MARGIN > exchange.length) {
        throw new InvalidArgumentError(`[${kernel}] ${inputs.length} inputs are too many for one call`);
      }
      exchange[at++] = handles[i]!;
      exchange[at++] = shape.length;
      for (let axis = 0; axis < shape.length; axis++) exchange[at++] = shape[axis]!;
    }
    const outputs = this.guard(() => this.addon.run(id, attributes));
    const results: Info[] = [];
    at = 0;
    for (let i = 0; i < outputs; i++) {
      const handle = exchange[at++]!;
      const type = exchange[at++]!;
      const rank = exchange[at++]!;
      const shape: number[] = [];
      let size = 1;
      for (let axis = 0; axis < rank; axis++) {
        const dim = exchange[at++]!;
        shape.push(dim);
        size *= dim;
      }
      const dtype = type <= CODES.float16 ? 'float32' : type === CODES.int32 ? 'int32' : 'bool';
      const data = new NativeData(this, dtype, size);
      data.handle = handle;
      this.count++;
      results.push({ dataId: data, shape, dtype });
    }
    return results;
  }

  /** The first output of a native kernel. */
  run1(kernel: string, inputs: readonly (Info | null | undefined)[], attributes?: Attributes): Info {
    return this.run(kernel, inputs, attributes)[0]!;
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

  dispose1(info: Info): void {
    this.disposeData(info.dataId);
  }

  private guard<T>(call: () => T): T {
    try {
      return call();
    } catch (error) {
      throw typed(error);
    }
  }

  // --- physical types ------------------------------------------------------------------------------------------------

  fromBytes(
    bytes: Uint8Array,
    storage: FloatStorageType,
    shape: number[],
    physical: PhysicalType,
    permutation?: number[],
  ): tf.Tensor {
    const size = tf.util.sizeFromShape(shape);
    const expected = size * (storage === 'F32' ? 4 : 2);
    if (!(storage in STORAGE) || !(physical in CODES)) {
      throw new InvalidArgumentError(`[${this.name}] cannot make ${physical} of ${storage}`);
    }
    if (bytes.byteLength !== expected) {
      throw new InvalidArgumentError(
        `[${this.name}] shape [${shape}] of ${storage} needs ${expected} bytes, got ${bytes.byteLength}`,
      );
    }
    const data = new NativeData(this, 'float32', size);
    data.handle = this.guard(() =>
      this.addon.create(bytes, STORAGE[storage], CODES[physical], shape, permutation, true),
    );
    this.count++;
    const result = permutation ? permutation.map((axis) => shape[axis]!) : [...shape];
    return tf.engine().makeTensorFromDataId(data, result, 'float32', this);
  }

  physicalType(tensor: tf.Tensor): PhysicalType {
    const data = this.data(tensor.dataId);
    if (data.dtype !== 'float32') {
      throw new InvalidArgumentError(`[${this.name}] physical types belong to float32 tensors, got ${data.dtype}`);
    }
    return NATIVE_TYPES[this.addon.typeOf(this.handleOf(data))] as PhysicalType;
  }

  toPhysical<T extends tf.Tensor>(tensor: T, physical: PhysicalType): T {
    return tf.engine().runKernel('PhysicalCast', { x: tensor }, { physical }) as unknown as T;
  }

  // --- the rest of KernelBackend -------------------------------------------------------------------------------------

  override async time(work: () => void): Promise<tf.BackendTimingInfo> {
    const start = performance.now();
    work();
    return { kernelMs: performance.now() - start };
  }

  override timerAvailable(): boolean {
    return true;
  }

  override memory(): { unreliable: boolean; numBytesNative: number } {
    return { unreliable: false, numBytesNative: this.addon.memory().bytesInUse };
  }

  memoryInfo(): MemoryInfo {
    return this.addon.memory();
  }

  resetPeak(): void {
    this.addon.resetPeak();
  }

  setMemoryLimit(bytes: number): void {
    this.guard(() => this.addon.setMemoryLimit(bytes));
  }

  override floatPrecision(): 16 | 32 {
    return 32;
  }

  override dispose(): void {
    this.addon.trim();
  }
}

/** What an addon throws, as an error of this library. */
function typed(error: unknown): unknown {
  const { code, message } = error as { code?: string; message: string };
  if (code === 'OUT_OF_MEMORY') return new OutOfMemoryError(message, { cause: error });
  return code === 'KERNEL_ERROR' ? new BackendError(message, { cause: error }) : error;
}
