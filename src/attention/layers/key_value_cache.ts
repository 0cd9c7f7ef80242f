import type { Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { toPhysicalType } from '../../backends/precision.js';
import type { PhysicalType } from '../../backends/types.js';
import { InvalidArgumentError } from '../../errors.js';
import type { AttentionProjections } from './projections.js';

interface Entry {
  k: Tensor3D;
  v: Tensor3D;
  /** The numbers that they were computed from. */
  contextId: object;
  /** The adapters that they were computed with. */
  version: number;
}

/**
 * Keys and values of encoder hidden states, which are the same at every denoising step: computed at the first and kept
 * until dispose(). A layer's keys belong to one context; another one needs a cache of its own.
 */
export class KeyValueCache {
  private readonly entries = new Map<AttentionProjections, Entry>();
  /** Contexts in a model's own type, by their numbers. */
  private readonly converted = new Map<object, Tensor3D>();

  /** A context in that type, the same tensor at each call, by which `get` knows it again. */
  context(context: Tensor3D, dtype: PhysicalType): Tensor3D {
    const known = this.converted.get(context.dataId);
    if (known) {
      return known;
    }
    const physical = toPhysicalType(context, dtype);
    if (physical !== context) {
      this.converted.set(context.dataId, tf.keep(physical));
    }
    return physical;
  }

  /** @throws InvalidArgumentError when the layer's keys in this cache are those of another context */
  get(projections: AttentionProjections, context: Tensor3D): { k: Tensor3D; v: Tensor3D } {
    const entry = this.entries.get(projections);
    if (entry && entry.contextId !== context.dataId) {
      throw new InvalidArgumentError(
        '[KeyValueCache] context expects the tensor that the first call had, whose keys and values are kept, got ' +
          `another [${context.shape}]; take one cache for each context, or dispose of this one`,
      );
    }
    return entry?.version === projections.version ? entry : this.compute(projections, context);
  }

  private compute(projections: AttentionProjections, context: Tensor3D): Entry {
    const { k, v } = projections.keysAndValues(context);
    const entry = { k: tf.keep(k), v: tf.keep(v), contextId: context.dataId, version: projections.version };
    const old = this.entries.get(projections);
    tf.dispose(old ? [old.k, old.v] : []);
    this.entries.set(projections, entry);
    return entry;
  }

  dispose(): void {
    for (const { k, v } of this.entries.values()) {
      tf.dispose([k, v]);
    }
    tf.dispose([...this.converted.values()]);
    this.entries.clear();
    this.converted.clear();
  }
}
