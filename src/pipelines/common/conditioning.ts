import type { Tensor, Tensor2D, Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { KeyValueCache } from '../../attention/index.js';
import { invalid } from '../../utils/check.js';

/** What a model is told beside the latents and the timestep; every tensor has the batch first. */
export interface ConditioningTensors {
  /** The prompt, [B, tokens, D]. */
  encoderHiddenStates: Tensor3D;
  /** [B, tokens]: 1 keeps a token, 0 hides it. */
  encoderAttentionMask?: Tensor2D;
  /** One state for the whole prompt, [B, D] (SDXL, SD3, FLUX). */
  pooled?: Tensor2D;
  /** Sizes and crops, [B, 6] (SDXL). */
  timeIds?: Tensor2D;
  /** Embedded pictures (IP-Adapter). */
  imageEmbeds?: Tensor;
  /** Embedded guidance scale of guidance-distilled models, [B, D]. */
  timestepCond?: Tensor2D;
  /** What stands beside the latents in the model's input, [B, h, w, C]: a mask and masked latents (inpainting). */
  inputChannels?: Tensor;
}

/** The tensors of one or several branches, and the keys and values that attention layers make of them. */
export type Conditions = ConditioningTensors & { cache: KeyValueCache };

/** The parts of guidance that a model is called for, by name. */
export type Branch = 'unconditional' | 'conditional' | 'imageOnly';

/**
 * The conditions of a run, by branches of guidance. Branches are taken together, in one batch, or one by one; keys and
 * values are computed once for each way of taking them.
 */
export class Conditioning {
  private readonly taken = new Map<string, Conditions>();

  /**
   * @param parts tensors by branch, in the order in which batches have them; every branch has the same names and
   *   shapes. They are taken over.
   */
  constructor(private readonly parts: Partial<Record<Branch, ConditioningTensors>>) {}

  get branches(): Branch[] {
    return Object.keys(this.parts) as Branch[];
  }

  /** Rows of a branch. */
  get batch(): number {
    return this.parts[this.branches[0]!]!.encoderHiddenStates.shape[0];
  }

  /**
   * Tells every branch more, before any is taken.
   *
   * @param more new tensors for a branch, of which it gets what there is; the same names for each; they are taken over
   */
  extend(more: (branch: Branch, known: ConditioningTensors) => Partial<ConditioningTensors>): void {
    this.forget();
    for (const branch of this.branches) {
      this.parts[branch] = { ...this.parts[branch]!, ...more(branch, this.parts[branch]!) };
    }
  }

  /** The conditions of these branches, one after another along the batch; they stay this object's. */
  take(branches: readonly Branch[] = this.branches): Conditions {
    const key = branches.join();
    const conditions = this.taken.get(key) ?? { ...this.joined(branches), cache: new KeyValueCache() };
    this.taken.set(key, conditions);
    return conditions;
  }

  private joined(branches: readonly Branch[]): ConditioningTensors {
    const parts = branches.map((branch) => this.parts[branch]!);
    const names = Object.keys(parts[0]!) as (keyof ConditioningTensors)[];
    const join = (name: keyof ConditioningTensors): [string, Tensor][] => {
      const tensors = parts.map((part) => part[name]).filter((tensor) => tensor !== undefined);
      return tensors.length === 0 ? [] : [[name, tf.keep(tf.tidy(() => tf.concat<Tensor>(tensors, 0)))]];
    };
    return Object.fromEntries(names.flatMap(join)) as Partial<ConditioningTensors> as ConditioningTensors;
  }

  /**
   * Goes on with other numbers for all branches, one after another along the batch; takes the tensor over.
   *
   * @param label name of the tensor in messages
   * @throws InvalidArgumentError unless it is a tensor of the shape that the branches have together
   */
  replace(where: string, name: keyof ConditioningTensors, label: string, tensor: Tensor): void {
    const [rows, ...rest] = this.parts[this.branches[0]!]![name]!.shape;
    const shape = [rows! * this.branches.length, ...rest];
    if (!(tensor instanceof tf.Tensor) || tensor.isDisposed || `${tensor.shape}` !== `${shape}`) {
      const error = invalid(where, label, `a tensor [${shape}]`, tensor);
      tf.dispose(tensor);
      throw error;
    }
    this.forget();
    const pieces = tf.tidy(() => tf.split(tensor, this.branches.length, 0));
    tensor.dispose();
    for (const [i, branch] of this.branches.entries()) {
      const part = this.parts[branch]!;
      part[name]!.dispose();
      this.parts[branch] = { ...part, [name]: tf.keep(pieces[i]!) };
    }
  }

  /** Frees what has been taken. */
  private forget(): void {
    for (const { cache, ...tensors } of this.taken.values()) {
      cache.dispose();
      tf.dispose(tensors);
    }
    this.taken.clear();
  }

  dispose(): void {
    this.forget();
    for (const part of Object.values(this.parts)) {
      tf.dispose({ ...part });
    }
  }
}
