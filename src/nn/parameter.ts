import type { Rank, Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { type PhysicalType, supportsPhysicalTypes } from '../backends/types.js';
import { DiffusersError } from '../errors.js';
import { decodeToFloat32, type StorageType } from '../loaders/state_dict.js';

/**
 * How a checkpoint's tensor lies in ours: 'linear' [out, in] -> [in, out] (a 1x1 convolution [out, in, 1, 1] is taken
 * too), 'conv' OIHW -> HWIO, 'plain' as it is.
 */
export type Layout = 'plain' | 'linear' | 'conv';

/** What random weights a parameter gets: torch's defaults for the layer that it belongs to. */
export type Initializer = 'uniform' | 'normal' | 'ones' | 'zeros';

const PERMUTATION: Record<Layout, number[] | null> = { plain: null, linear: [1, 0], conv: [2, 3, 1, 0] };

/** A tensor of a model: where it lies in the checkpoint, its shape there, and its value once loaded. */
export class Parameter<R extends Rank = Rank> {
  private tensor: Tensor<R> | null = null;

  /**
   * @param paths the key in the checkpoint; further ones are older names of the same tensor
   * @param shape shape in the checkpoint (torch's)
   * @param fanIn inputs per output, for random weights
   */
  constructor(
    readonly paths: string[],
    readonly shape: number[],
    readonly layout: Layout,
    readonly initializer: Initializer,
    readonly fanIn: number,
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

  /** Takes the checkpoint's bytes; native backends store them as `physical`, the others as float32. */
  load(bytes: Uint8Array, storage: StorageType, physical: PhysicalType): void {
    const permutation = PERMUTATION[this.layout];
    const backend = tf.backend();
    if (supportsPhysicalTypes(backend) && (storage === 'F32' || storage === 'F16' || storage === 'BF16')) {
      this.replace(backend.fromBytes(bytes, storage, this.matrixShape, physical, permutation ?? undefined));
      return;
    }
    this.assign(decodeToFloat32(bytes, storage));
  }

  /** Takes float32 numbers in the checkpoint's order. */
  assign(data: Float32Array): void {
    const permutation = PERMUTATION[this.layout];
    const value = tf.tidy(() => {
      const raw = tf.tensor(data, this.matrixShape, 'float32');
      return permutation ? tf.transpose(raw, permutation) : raw;
    });
    this.replace(value);
  }

  /** The numbers in the checkpoint's order. */
  async data(): Promise<Float32Array> {
    const permutation = PERMUTATION[this.layout];
    if (!permutation) {
      return (await this.value.data()) as Float32Array;
    }
    const inverse = permutation.map((_, axis) => permutation.indexOf(axis));
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

  dispose(): void {
    this.tensor?.dispose();
    this.tensor = null;
  }

  private replace(value: Tensor): void {
    this.dispose();
    this.tensor = tf.keep(value) as Tensor<R>;
  }
}
