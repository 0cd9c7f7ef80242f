import * as tf from '@tensorflow/tfjs-core';
import type { Model } from '../../models/index.js';
import type { Adapter, Parameter, WeightChange } from '../../nn/index.js';
import type { LoraTarget } from './lora_file.js';
import { type ModelWeight, weightAt } from './lora_weights.js';

/** A LoRA at work in a model. */
export interface ActiveLora {
  name: string;
  weight: ModelWeight;
}

const states = new WeakMap<Model, ModelLora>();

/**
 * The LoRAs of one model, which all pipelines with the model share: those that are loaded, those of them that are at work
 * and those that are part of the weights.
 */
export class ModelLora {
  private readonly loaded = new Map<string, readonly LoraTarget[]>();
  private working: readonly ActiveLora[] = [];
  private fusedNames: readonly string[] = [];
  /** Targets of fused LoRAs that were unloaded: an offloaded model applies them to each weight that it reads. */
  private kept: LoraTarget[] = [];
  private isEnabled = true;
  private scale = 1;

  private constructor(private readonly model: Model) {}

  /** The state of a model, made when it is first asked for. */
  static of(model: Model): ModelLora {
    const known = states.get(model);
    if (known) {
      return known;
    }
    const state = new ModelLora(model);
    states.set(model, state);
    model.attached.add(state);
    return state;
  }

  /** The state of a model that has had LoRAs. */
  static find(model: Model): ModelLora | undefined {
    return states.get(model);
  }

  get names(): string[] {
    return [...this.loaded.keys()];
  }

  get active(): readonly ActiveLora[] {
    return this.working;
  }

  get fused(): readonly string[] {
    return this.fusedNames;
  }

  get enabled(): boolean {
    return this.isEnabled;
  }

  set enabled(on: boolean) {
    this.isEnabled = on;
    this.attach();
  }

  /** Factor of all weights, for the time of a call. */
  set callScale(scale: number) {
    if (scale !== this.scale) {
      this.scale = scale;
      this.attach();
    }
  }

  /** The changes that are these LoRAs'. */
  get changes(): Set<WeightChange> {
    return new Set(this.targets.map(({ change }) => change));
  }

  /** Takes a LoRA over; it alone is at work then, as in PEFT. */
  add(name: string, targets: readonly LoraTarget[]): void {
    this.loaded.set(name, targets);
    this.activate([{ name, weight: 1 }]);
  }

  /** @throws InvalidArgumentError for weights of blocks that the model does not have */
  activate(active: readonly ActiveLora[]): void {
    for (const { weight } of active) {
      weightAt(this.model, weight);
    }
    this.working = active.filter(({ name }) => this.loaded.has(name));
    this.attach();
  }

  /** Frees a LoRA. When none is at work any more, the first of those that are left is, as in PEFT. */
  remove(name: string): void {
    const targets = this.loaded.get(name) ?? [];
    const rest = this.working.filter((active) => active.name !== name);
    const [first] = this.names.filter((other) => other !== name);
    const none = rest.length === 0 && rest.length < this.working.length;
    this.working = none && first !== undefined ? [{ name: first, weight: 1 }] : rest;
    this.attach(() => this.loaded.delete(name));
    this.release(name, targets);
  }

  /** Frees all LoRAs; those that are fused stay in the weights. */
  clear(): void {
    this.working = [];
    this.attach();
    const all = [...this.loaded];
    this.loaded.clear();
    for (const [name, targets] of all) {
      this.release(name, targets);
    }
  }

  /** Makes LoRAs part of the weights, at `scale` times their weights, 1 for those that are not at work. */
  fuse(names: readonly string[], scale: number): void {
    const chosen = names
      .filter((name) => this.loaded.has(name) && !this.fusedNames.includes(name))
      .map((name) => this.working.find((active) => active.name === name) ?? { name, weight: 1 });
    const parameters = this.attach(undefined, chosen, scale);
    const { changes } = this;
    for (const parameter of parameters) {
      const foreign = parameter.adapters.filter(({ change }) => !changes.has(change));
      parameter.adapters = parameter.adapters.filter(({ change }) => changes.has(change));
      parameter.fuse();
      parameter.adapters = foreign;
    }
    this.fusedNames = [...this.fusedNames, ...chosen.map(({ name }) => name)];
    this.attach();
  }

  /** Reads the weights without the fused LoRAs again; those at work are at work as before. */
  async unfuse(): Promise<void> {
    await this.model.unfuse();
    this.fusedNames = [];
    tf.dispose(this.kept.flatMap(({ change }) => [...change.tensors]));
    this.kept = [];
    this.attach();
  }

  dispose(): void {
    tf.dispose([...this.targets, ...this.kept].flatMap(({ change }) => [...change.tensors]));
    this.loaded.clear();
    this.working = [];
    this.kept = [];
    states.delete(this.model);
  }

  private get targets(): LoraTarget[] {
    return [...this.loaded.values()].flat();
  }

  /** Frees the tensors of a LoRA, unless fused weights are computed from them. */
  private release(name: string, targets: readonly LoraTarget[]): void {
    if (this.fusedNames.includes(name)) {
      this.fusedNames = this.fusedNames.filter((fused) => fused !== name);
      this.kept.push(...targets);
    } else {
      tf.dispose(targets.flatMap(({ change }) => [...change.tensors]));
    }
  }

  /**
   * Gives every parameter the adapters that are at work, after those that others have put there.
   *
   * @param change what happens when the old adapters have been found and the new ones not yet
   * @returns the parameters that have some
   */
  private attach(change?: () => void, active = this.resting, scale = this.scale): Set<Parameter> {
    const own = this.changes;
    const touched = new Set(this.targets.map(({ parameter }) => parameter));
    change?.();
    const adapters = this.adaptersOf(active, scale);
    for (const parameter of touched) {
      const foreign = parameter.adapters.filter((adapter) => !own.has(adapter.change));
      const next = [...foreign, ...(adapters.get(parameter) ?? [])];
      if (!sameAdapters(parameter.adapters, next)) {
        parameter.adapters = next;
      }
    }
    return new Set(adapters.keys());
  }

  /** LoRAs that are applied at each use: all that are at work but those in the weights already. */
  private get resting(): readonly ActiveLora[] {
    return this.isEnabled ? this.working.filter(({ name }) => !this.fusedNames.includes(name)) : [];
  }

  private adaptersOf(active: readonly ActiveLora[], factor: number): Map<Parameter, Adapter[]> {
    const adapters = new Map<Parameter, Adapter[]>();
    for (const { name, weight } of active) {
      const weightOf = weightAt(this.model, weight);
      for (const { path, parameter, change, scaling } of this.loaded.get(name)!) {
        const scale = weightOf(path) * scaling * factor;
        const list = adapters.get(parameter) ?? [];
        adapters.set(parameter, [...list, ...(scale === 0 ? [] : [{ name, change, scale }])]);
      }
    }
    return adapters;
  }
}

function sameAdapters(a: readonly Adapter[], b: readonly Adapter[]): boolean {
  return a.length === b.length && a.every((x, i) => x.change === b[i]!.change && x.scale === b[i]!.scale);
}
