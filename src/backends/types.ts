import type { KernelBackend, Tensor } from '@tensorflow/tfjs-core';

/** How numbers lie in a checkpoint file (the dtype names of safetensors). */
export type FloatStorageType = 'F32' | 'F16' | 'BF16';

/** How a tensor whose logical dtype is float32 lies in the memory of a native backend. */
export type PhysicalType = 'float32' | 'bfloat16' | 'float16';

/** What a native backend knows about its memory; all numbers are bytes. */
export interface MemoryInfo {
  /** Held by live tensors, packed weights and running kernels. */
  bytesInUse: number;
  /** Kept for reuse by later tensors; given back to the system when memory gets tight. */
  poolBytes: number;
  /** The largest bytesInUse since the start or the last resetPeak(). */
  peakBytes: number;
  /** The limit set by setMemoryLimit(), 0 for none. */
  limitBytes: number;
  /** What the system could still give to this process. */
  freeBytes: number;
}

/** A backend of this library whose float32 tensors may be stored in 16 bits. */
export interface NativeTensorBackend extends KernelBackend {
  /**
   * Makes a tensor straight from the bytes of a checkpoint, without a float32 copy on the way.
   *
   * @param bytes the numbers, little endian, C order; they are read during the call only
   * @param storage how the numbers lie in `bytes`
   * @param shape shape in the checkpoint
   * @param physical how the tensor shall be stored
   * @param permutation axes of the result in terms of the checkpoint's, as in tf.transpose: [2, 3, 1, 0] makes HWIO of OIHW
   * @returns a float32 tensor of the permuted shape. It is a weight: a kernel that packs it may drop the plain copy.
   * @throws InvalidArgumentError when shape and bytes do not fit; OutOfMemoryError
   */
  fromBytes(
    bytes: Uint8Array,
    storage: FloatStorageType,
    shape: number[],
    physical: PhysicalType,
    permutation?: number[],
  ): Tensor;
  /** How a float32 tensor of this backend is stored. */
  physicalType(tensor: Tensor): PhysicalType;
  /** The same numbers stored as `physical`: rounded to nearest even; a new reference to the same data when they already are. */
  toPhysical<T extends Tensor>(tensor: T, physical: PhysicalType): T;
  memoryInfo(): MemoryInfo;
  /** Makes peakBytes start again from what is in use now. */
  resetPeak(): void;
  /** Allocations that would take the backend above `bytes` throw OutOfMemoryError; 0 lifts the limit. */
  setMemoryLimit(bytes: number): void;
}

/** True for the backends of this library that store float32 tensors in 16 bits on demand. */
export function supportsPhysicalTypes(backend: KernelBackend): backend is NativeTensorBackend {
  return typeof (backend as Partial<NativeTensorBackend>).fromBytes === 'function';
}
