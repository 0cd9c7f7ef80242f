import type { Tensor1D, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { files } from '#platform';
import { InvalidArgumentError } from '../../errors.js';
import type { LoadModelOptions, SaveOptions } from '../model.js';
import { type ControlNetInputs, ControlNetModel, type ControlNetOutput } from './controlnet.js';

/** Inputs of several ControlNets: what is a list has one entry for each. */
export interface MultiControlNetInputs extends Omit<ControlNetInputs, 'conditioningScale'> {
  conditioningScale?: readonly number[];
}

/** Several ControlNets whose additions are summed (diffusers/models/controlnets/multicontrolnet.py). */
export class MultiControlNetModel {
  /** @throws InvalidArgumentError without any */
  constructor(readonly nets: readonly ControlNetModel[]) {
    if (nets.length === 0) {
      throw new InvalidArgumentError('[MultiControlNetModel] nets expects at least one ControlNetModel, got none');
    }
  }

  /** Loads from `dir`, `dir`_1, `dir`_2, ..., as many as there are. */
  static async fromPretrained(dir: string, options: LoadModelOptions = {}): Promise<MultiControlNetModel> {
    const nets: ControlNetModel[] = [];
    try {
      for (let path = dir; nets.length === 0 || (await files.kind(path)) === 'directory'; ) {
        nets.push(await ControlNetModel.fromPretrained(path, options));
        path = `${dir}_${nets.length}`;
      }
      return new MultiControlNetModel(nets);
    } catch (error) {
      for (const net of nets) {
        net.dispose();
      }
      throw error;
    }
  }

  /**
   * The sum of what the ControlNets add; see ControlNetModel.
   *
   * @param controlnetCond a condition for each
   */
  async predict(
    sample: Tensor4D,
    timestep: number | Tensor1D,
    encoderHiddenStates: Tensor3D,
    controlnetCond: readonly Tensor4D[],
    inputs: MultiControlNetInputs = {},
  ): Promise<ControlNetOutput> {
    let sum: ControlNetOutput | undefined;
    for (const [i, net] of this.nets.entries()) {
      const own = { ...inputs, conditioningScale: inputs.conditioningScale?.[i] };
      const output = await net.predict(sample, timestep, encoderHiddenStates, controlnetCond[i]!, own);
      sum = sum ? added(sum, output) : output;
    }
    return sum!;
  }

  /** Writes the ControlNets into `dir`, `dir`_1, `dir`_2, ... */
  async savePretrained(dir: string, options: SaveOptions = {}): Promise<void> {
    for (const [i, net] of this.nets.entries()) {
      await net.savePretrained(i === 0 ? dir : `${dir}_${i}`, options);
    }
  }

  /** Frees every weight. */
  dispose(): void {
    for (const net of this.nets) {
      net.dispose();
    }
  }
}

/** Takes both over. */
function added(a: ControlNetOutput, b: ControlNetOutput): ControlNetOutput {
  const sum = tf.tidy(() => ({
    downBlockResSamples: a.downBlockResSamples.map((x, i) => tf.add<Tensor4D>(x, b.downBlockResSamples[i]!)),
    midBlockResSample: tf.add<Tensor4D>(a.midBlockResSample, b.midBlockResSample),
  }));
  tf.dispose([a, b]);
  return sum;
}
