import type { AttentionMethod } from '../methods/attention_method.js';
import type { AttentionName, AttentionOptions } from '../methods/options.js';

/** A layer that computes attention by a method; it may hold further layers of the same number of heads. */
export interface AttentionLayer {
  /** The method that computed the last call: the layer's own, or the one that 'auto' or 'sdp' chose. */
  readonly taken: AttentionName | null;
}

/** A place in a model whose way to compute attention can be chosen. */
export interface AttentionPlace {
  /** @throws InvalidArgumentError for options that this place cannot take */
  methodFor(options: AttentionOptions): AttentionMethod;
  /** Computes by that method from now on; the weights stay. */
  setMethod(method: AttentionMethod): void;
}

/** Computes attention in another way at every place, or, when one of them cannot take the options, at none. */
export function setAttentionAt(places: readonly AttentionPlace[], options: AttentionOptions): void {
  const methods = places.map((place) => place.methodFor(options));
  for (const [i, place] of places.entries()) {
    place.setMethod(methods[i]!);
  }
}

/** The methods that computed so far, by the number of attention layers: { 'memory-efficient': 32 }. */
export function attentionStatistics(layers: Iterable<AttentionLayer>): Partial<Record<AttentionName, number>> {
  const counts: Partial<Record<AttentionName, number>> = {};
  for (const { taken } of layers) {
    if (taken) {
      counts[taken] = (counts[taken] ?? 0) + 1;
    }
  }
  return counts;
}
