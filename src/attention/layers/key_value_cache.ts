import type { Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { AttentionProjections } from './projections.js';

/**
 * Keys and values of the encoder hidden states, which are the same at every denoising step: computed at the first and
 * kept until dispose(). One cache belongs to one tensor of encoder hidden states.
 */
export class KeyValueCache {
  private readonly entries = new Map<AttentionProjections, { k: Tensor3D; v: Tensor3D }>();

  get(projections: AttentionProjections, context: Tensor3D): { k: Tensor3D; v: Tensor3D } {
    let entry = this.entries.get(projections);
    if (!entry) {
      const { k, v } = projections.keysAndValues(context);
      entry = { k: tf.keep(k), v: tf.keep(v) };
      this.entries.set(projections, entry);
    }
    return entry;
  }

  dispose(): void {
    for (const { k, v } of this.entries.values()) {
      tf.dispose([k, v]);
    }
    this.entries.clear();
  }
}
