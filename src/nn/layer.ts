import type { Rank } from '@tensorflow/tfjs-core';
import type { Adapter } from './adapter.js';
import type { Parameter } from './parameter.js';

/** A layer with weights, which `Weights` lists by its path and which adapters may change. */
export abstract class Layer<R extends Rank = Rank> {
  abstract readonly weight: Parameter<R>;
  abstract readonly bias: Parameter<Rank.R1> | null;

  /** The adapters of the weight; a new list takes effect at the next call. A bias can have its own: `layer.bias.adapters`. */
  get adapters(): readonly Adapter[] {
    return this.weight.adapters;
  }

  set adapters(adapters: readonly Adapter[]) {
    this.weight.adapters = adapters;
  }
}
