import type { Tensor, TensorContainer } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { PhysicalType } from '../backends/types.js';
import type { StateDict } from '../loaders/state_dict.js';
import type { Parameter } from '../nn/index.js';
import { type LoadStateDictOptions, matchStateDict } from './model_loading.js';

/**
 * Weights that are in memory only while they are needed: a model's parameters and the checkpoint that they are read from
 * again each time.
 */
export class WeightStore {
  private readonly keys: Map<Parameter, string>;

  /**
   * @param dict stays open until close()
   * @throws StateDictError when the checkpoint does not fit the parameters
   */
  constructor(
    parameters: readonly Parameter[],
    private readonly dict: StateDict,
    private readonly dtype: PhysicalType,
    options: LoadStateDictOptions = {},
  ) {
    this.keys = matchStateDict(parameters, dict, options);
  }

  /** Reads those of the parameters that are not in memory. */
  async load(parameters: Iterable<Parameter>): Promise<void> {
    for (const parameter of parameters) {
      if (!parameter.isLoaded) {
        const key = this.keys.get(parameter)!;
        const bytes = await this.dict.read(key);
        // another reader may have been faster
        if (!parameter.isLoaded) {
          parameter.load(bytes, this.dict.info(key)!.dtype, this.dtype);
        }
      }
    }
  }

  /** Frees the parameters' memory. */
  release(parameters: Iterable<Parameter>): void {
    for (const parameter of parameters) {
      parameter.dispose();
    }
  }

  /** Runs `f` with the parameters in memory, and frees them afterwards. */
  async using<T>(parameters: readonly Parameter[], f: () => T | Promise<T>): Promise<T> {
    try {
      await this.load(parameters);
      return await f();
    } finally {
      this.release(parameters);
    }
  }

  close(): Promise<void> {
    return this.dict.close();
  }
}

/** The tensors between two steps of a forward pass; they are the pass's own. */
export type ForwardState = Record<string, Tensor | Tensor[]>;

const tensorsOf = (state: ForwardState): Tensor[] => Object.values(state).flat();

/** A part of a forward pass that computes with the weights of one block. */
export interface ForwardStep<S extends ForwardState> {
  /** The block's path, one of the model's `blockPaths`; null for weights outside of the blocks, which are always there. */
  readonly block: string | null;
  /** Gives the next state. Tensors of the old one that are not in the new one are then freed. */
  run(state: S): S;
}

/** A forward pass in steps, so that weights can be exchanged between them. */
export interface ForwardPass<S extends ForwardState, T extends TensorContainer> {
  /** Tensors that the steps use and that are the pass's own. */
  readonly owned: readonly Tensor[];
  readonly start: S;
  readonly steps: readonly ForwardStep<S>[];
  finish(state: S): T;
}

function advance<S extends ForwardState>(state: S, step: ForwardStep<S>): S {
  const next = tf.tidy(() => step.run(state));
  const kept = new Set(tensorsOf(next));
  tf.dispose(tensorsOf(state).filter((tensor) => !kept.has(tensor)));
  return next;
}

/** Runs a pass whose weights are all in memory. */
export function runPass<S extends ForwardState, T extends TensorContainer>(create: () => ForwardPass<S, T>): T {
  return tf.tidy(() => {
    const { start, steps, finish } = create();
    return finish(steps.reduce(advance, start));
  });
}

/** Runs a pass that waits for the weights of each block; only those of the block at work are in memory. */
export async function runPassInBlocks<S extends ForwardState, T extends TensorContainer>(
  create: () => ForwardPass<S, T>,
  store: WeightStore,
  parametersOf: (block: string) => readonly Parameter[],
): Promise<T> {
  const pass = kept(create);
  let state = pass.start;
  try {
    for (const step of pass.steps) {
      const parameters = step.block === null ? [] : parametersOf(step.block);
      state = await store.using(parameters, () => advance(state, step));
    }
    return tf.tidy(() => pass.finish(state));
  } finally {
    tf.dispose([...tensorsOf(state), ...pass.owned]);
  }
}

/** A pass whose own tensors outlive the tidy that makes it. */
function kept<S extends ForwardState, T extends TensorContainer>(create: () => ForwardPass<S, T>): ForwardPass<S, T> {
  const passes: ForwardPass<S, T>[] = [];
  tf.tidy(() => {
    passes.push(create());
    return [...passes[0]!.owned, ...tensorsOf(passes[0]!.start)];
  });
  return passes[0]!;
}
