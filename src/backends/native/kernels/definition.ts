import * as tf from '@tensorflow/tfjs-core';
import type { AttributeValue } from '../addon.js';
import type { Info, NativeBackend } from '../backend.js';
import { forward } from '../forward.js';

export interface KernelArguments {
  inputs: Record<string, Info>;
  backend: NativeBackend;
  // biome-ignore lint/suspicious/noExplicitAny: attributes are as different as the kernels
  attrs: any;
}

export interface KernelDefinition {
  name: string;
  /** The kernels of the addon that it calls; without one of them it is not registered. */
  needs: readonly string[];
  run(args: KernelArguments): Info | Info[];
}

const isNative = ({ dtype }: Info) => dtype === 'float32' || dtype === 'int32' || dtype === 'bool';

/** A kernel written for float32, int32 and bool tensors; others go to tfjs's cpu kernel of that name. */
export function kernel(
  name: string,
  run: (args: KernelArguments) => Info | Info[],
  needs: readonly string[] = [name],
): KernelDefinition {
  return {
    name,
    needs,
    run: (args) => {
      for (const key in args.inputs) {
        const input = args.inputs[key];
        if (input && !isNative(input)) return forward(name, args);
      }
      return run(args);
    },
  };
}

/** A kernel whose native counterpart takes the inputs named here, in that order, and the same attributes. */
export function direct(name: string, inputs: readonly string[], outputs: 'one' | 'several' = 'one'): KernelDefinition {
  return kernel(name, ({ inputs: given, backend, attrs }) => {
    const results = backend.run(
      name,
      inputs.map((key) => given[key]),
      attrs as Record<string, AttributeValue>,
    );
    return outputs === 'one' ? results[0]! : results;
  });
}

/** Axes as tfjs-core's attributes give them, as a list of non-negative numbers. */
export function axesOf(axis: number | number[] | undefined | null, shape: number[]): number[] {
  return tf.util.parseAxisParam(axis ?? shape.map((_, i) => i), shape);
}
