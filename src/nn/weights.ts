import type { Rank } from '@tensorflow/tfjs-core';
import type { PhysicalType } from '../backends/types.js';
import type { Layer } from './layer.js';
import { type Initializer, type Layout, Parameter } from './parameter.js';

export interface ParameterOptions {
  layout?: Layout;
  initializer?: Initializer;
  fanIn?: number;
}

/**
 * A place in a checkpoint. Modules declare their parameters at it, so that a module's path is its checkpoint key:
 * `new Linear(weights.at('attn1').at('to_q'), 320, 320)` has the key `attn1.to_q.weight`.
 */
export class Weights {
  private constructor(
    private readonly paths: string[],
    /** Every parameter declared so far, of the whole model. */
    readonly parameters: Parameter[],
    /** Every layer built so far, of the whole model, by its main path. */
    readonly layers: Map<string, Layer>,
    /** How native backends store the weights. */
    private readonly dtype: PhysicalType,
  ) {}

  /** The root of a new model, whose weights native backends store as `dtype`. */
  static root(dtype: PhysicalType = 'float32'): Weights {
    return new Weights([''], [], new Map(), dtype);
  }

  /** The place's main path, '' for the root. */
  get path(): string {
    return this.paths[0]!;
  }

  /** A place below this one; further names are older names of it, '' among them means that the level may be absent. */
  at(...names: (string | number)[]): Weights {
    const join = (path: string, name: string | number) => (path && name !== '' ? `${path}.${name}` : `${path}${name}`);
    const paths = names.flatMap((name) => this.paths.map((path) => join(path, name)));
    return new Weights(paths, this.parameters, this.layers, this.dtype);
  }

  /** Declares a tensor of that shape (torch's) in the checkpoint. */
  parameter<R extends Rank = Rank>(name: string, shape: number[], options: ParameterOptions = {}): Parameter<R> {
    const { layout = 'plain', initializer = 'uniform', fanIn = shape.slice(1).reduce((a, b) => a * b, 1) } = options;
    const parameter = new Parameter<R>(this.at(name).paths, shape, layout, initializer, fanIn, this.dtype);
    this.parameters.push(parameter as unknown as Parameter);
    return parameter;
  }

  /** Lists a layer under this place's path. */
  register(layer: Layer): void {
    this.layers.set(this.path, layer);
  }
}
