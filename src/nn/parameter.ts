import type { Rank, Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { physicalTypeOf, toPhysicalType } from '../backends/precision.js';
import { type PhysicalType, supportsPhysicalTypes } from '../backends/types.js';
import { DiffusersError } from '../errors.js';
import { decodeToFloat32, type StorageType } from '../loaders/state_dict.js';
import type { Adapter } from './adapter.js';

/**
 * How a checkpoint's tensor lies in ours: 'linear' [out, in] -> [in, out] (a 1x1 convolution [out, in, 1, 1] is taken
 * too), 'conv' OIHW -> HWIO, 'plain' as it is.
 */
export type Layout = 'plain' | 'linear' | 'conv';

/** What random weights a parameter gets: torch's defaults for the layer that it belongs to. */
export type Initializer = 'uniform' | 'normal' | 'ones' | 'zeros';

const PERMUTATION: Record<Layout, number[] | null> = { plain: null, linear: [1, 0], conv: [2, 3, 1, 0] };

const bytesOf = (data: Float32Array) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/**
 * A tensor of a model: where it lies in the checkpoint, its shape there, its value once loaded, and what adapters make of
 * it. `value` is what is trained and saved, `effective` what layers compute with.
 */
export class Parameter<R extends Rank = Rank> {
  private tensor: Tensor<R> | null = null;
  private attached: readonly Adapter[] = [];
  private fusedAdapters: readonly Adapter[] = [];
  /** The value with the adapters, while it can be kept. */
  private adapted: Tensor<R> | null = null;
  private changes = 0;

  /**
   * @param paths the key in the checkpoint; further ones are older names of the same tensor
   * @param shape shape in the checkpoint (torch's)
   * @param fanIn inputs per output, for random weights
   * @param dtype how native backends store the tensor
   */
  constructor(
    readonly paths: string[],
    readonly shape: number[],
    readonly layout: Layout,
    readonly initializer: Initializer,
    readonly fanIn: number,
    private readonly dtype: PhysicalType = 'float32',
  ) {}

  get path(): string {
    return this.paths[0]!;
  }

  get isLoaded(): boolean {
    return this.tensor !== null;
  }

  /** The tensor in our layout. It belongs to the parameter: do not dispose of it. */
  get value(): Tensor<R> {
    if (!this.tensor) {
      throw new DiffusersError(`[${this.path}] the weights are not loaded (or were disposed of); load the model again`);
    }
    return this.tensor;
  }

  /** The tensor that layers compute with: the value, changed by the adapters. It belongs to the parameter. */
  get effective(): Tensor<R> {
    return this.attached.length === 0 ? this.value : this.withAdapters();
  }

  /** The tensors that `effective` depends on, for gradients. */
  get sources(): readonly Tensor[] {
    return this.isLive
      ? [this.value, ...this.attached.flatMap(({ change }) => change.tensors)]
      : [this.effective as Tensor];
  }

  /** Adapters that change the tensor, one after another, from the next use on. */
  get adapters(): readonly Adapter[] {
    return this.attached;
  }

  set adapters(adapters: readonly Adapter[]) {
    this.attached = adapters.filter(({ scale }) => scale !== 0);
    this.forgetAdapted();
  }

  /** Adapters that are part of the value. */
  get fused(): readonly Adapter[] {
    return this.fusedAdapters;
  }

  /** Counts the changes by adapters, so that what was computed from the tensor can be known to be old. */
  get version(): number {
    return this.changes;
  }

  /**
   * Makes the adapters part of the value: they cost no memory any more, and are saved. A value that is read from the
   * checkpoint again gets them, too.
   */
  fuse(): void {
    if (this.attached.length === 0) {
      return;
    }
    const adapters = this.attached;
    this.fusedAdapters = [...this.fusedAdapters, ...adapters];
    this.attached = [];
    this.forgetAdapted();
    if (this.tensor) {
      this.replace(this.changed(this.value, adapters));
    }
  }

  /** Forgets fused adapters and frees the value, which has them: it must be read from the checkpoint again. */
  unfuse(): void {
    if (this.fusedAdapters.length > 0) {
      this.fusedAdapters = [];
      this.dispose();
      this.changes++;
    }
  }

  /** Whether the effective tensor must be computed anew at each use. */
  private get isLive(): boolean {
    const trained = this.tensor instanceof tf.Variable || this.attached.some(({ change }) => change.live);
    return this.attached.length > 0 && trained;
  }

  private withAdapters(): Tensor<R> {
    if (this.isLive) {
      return this.apply(this.value, this.attached);
    }
    this.adapted ??= tf.keep(this.changed(this.value, this.attached));
    return this.adapted;
  }

  /** The tensor changed by adapters, as a weight like those that are read from a checkpoint. */
  private changed(value: Tensor<R>, adapters: readonly Adapter[]): Tensor<R> {
    const backend = tf.backend();
    const changed = this.apply(value, adapters);
    if (!supportsPhysicalTypes(backend)) {
      return changed;
    }
    // read back once, so that the backend knows it as a weight: packing it may drop the plain copy
    const bytes = bytesOf(changed.dataSync<'float32'>());
    const weight = backend.fromBytes(bytes, 'F32', changed.shape, physicalTypeOf(changed));
    changed.dispose();
    return weight as Tensor<R>;
  }

  /** Adapters compute in float32 and in the checkpoint's order of axes. */
  private apply(value: Tensor<R>, adapters: readonly Adapter[]): Tensor<R> {
    const { inverse, permutation } = this;
    return tf.tidy(() => {
      const plain = toPhysicalType(value as Tensor, 'float32');
      const weight = inverse ? tf.transpose(plain, inverse) : plain;
      const changed = adapters.reduce((w, { change, scale }) => change.apply(w, scale, weight), weight);
      const back = permutation ? tf.transpose(changed, permutation) : changed;
      return toPhysicalType(back, physicalTypeOf(value)) as Tensor<R>;
    });
  }

  private forgetAdapted(): void {
    this.adapted?.dispose();
    this.adapted = null;
    this.changes++;
  }

  private get permutation(): number[] | null {
    return PERMUTATION[this.layout];
  }

  private get inverse(): number[] | null {
    return this.permutation?.map((_, axis, all) => all.indexOf(axis)) ?? null;
  }

  get size(): number {
    return this.shape.reduce((a, b) => a * b, 1);
  }

  /** Whether a tensor of that shape in a checkpoint is this one; a matrix may be a 1x1 convolution and the reverse. */
  accepts(shape: readonly number[]): boolean {
    const pointwise = this.layout === 'linear' && shape.length === 4 && shape[2] === 1 && shape[3] === 1;
    const [a, b] = [pointwise ? shape.slice(0, 2) : shape, this.matrixShape];
    return a.length === b.length && a.every((size, i) => size === b[i]);
  }

  /** The checkpoint's shape without the 1x1 of a convolution that we keep as a matrix. */
  private get matrixShape(): number[] {
    return this.layout === 'linear' ? this.shape.slice(0, 2) : this.shape;
  }

  /**
   * Takes the checkpoint's bytes; native backends store them as `physical`, the others as float32. Fused adapters are
   * applied to them.
   */
  load(bytes: Uint8Array, storage: StorageType, physical: PhysicalType = this.dtype): void {
    this.replace(this.decoded(bytes, storage, physical));
    if (this.fusedAdapters.length > 0) {
      this.replace(this.changed(this.value, this.fusedAdapters));
    }
  }

  /** Takes float32 numbers in the checkpoint's order, as the whole value; the tensor keeps the model's type. */
  assign(data: Float32Array): void {
    this.fusedAdapters = [];
    const physical = this.tensor ? physicalTypeOf(this.tensor as Tensor) : this.dtype;
    this.load(bytesOf(data), 'F32', physical);
  }

  private decoded(bytes: Uint8Array, storage: StorageType, physical: PhysicalType): Tensor {
    const { permutation, matrixShape } = this;
    const backend = tf.backend();
    if (supportsPhysicalTypes(backend)) {
      const isNative = storage === 'F32' || storage === 'F16' || storage === 'BF16';
      const numbers = isNative ? bytes : bytesOf(decodeToFloat32(bytes, storage));
      return backend.fromBytes(numbers, isNative ? storage : 'F32', matrixShape, physical, permutation ?? undefined);
    }
    return tf.tidy(() => {
      const raw = tf.tensor(decodeToFloat32(bytes, storage), matrixShape, 'float32');
      return permutation ? tf.transpose(raw, permutation) : raw;
    });
  }

  /** The numbers in the checkpoint's order. */
  async data(): Promise<Float32Array> {
    const { inverse } = this;
    if (!inverse) {
      return (await this.value.data()) as Float32Array;
    }
    const raw = tf.transpose(this.value as Tensor, inverse);
    const data = (await raw.data()) as Float32Array;
    raw.dispose();
    return data;
  }

  /**
   * Makes the tensor a tf.Variable and gives it back, so that tf.variableGrads and the optimizers of tf.train find it and
   * its updates are the model's.
   */
  asVariable(): tf.Variable<R> {
    if (!(this.tensor instanceof tf.Variable)) {
      this.replace(tf.variable(this.value as Tensor));
    }
    return this.tensor as unknown as tf.Variable<R>;
  }

  /** Frees the tensor, and what adapters made of it; the adapters stay. */
  dispose(): void {
    this.tensor?.dispose();
    this.adapted?.dispose();
    this.tensor = null;
    this.adapted = null;
  }

  private replace(value: Tensor): void {
    this.dispose();
    this.tensor = tf.keep(value) as Tensor<R>;
  }
}
