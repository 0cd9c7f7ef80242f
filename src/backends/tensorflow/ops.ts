import type { KernelFunc, Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { TensorFlowOp } from '../native/addon.js';
import type { TensorFlowBackend, TensorFlowBinding } from './register.js';

type AttributeType = TensorFlowOp['attributes'][string];

function typeCode(type: AttributeType, binding: TensorFlowBinding): number {
  return { number: binding.TF_ATTR_FLOAT, integer: binding.TF_ATTR_INT, text: binding.TF_ATTR_STRING }[type];
}

/** Makes tfjs kernels of ops that TensorFlow knows by now: native/tensorflow/ops.cc says what each is. */
export function registerOps(ops: readonly TensorFlowOp[], binding: TensorFlowBinding): void {
  for (const op of ops) {
    tf.registerKernel({ kernelName: op.name, backendName: 'tensorflow', kernelFunc: kernelOf(op, binding) });
  }
}

function kernelOf(op: TensorFlowOp, binding: TensorFlowBinding): KernelFunc {
  const { name, inputs, optional, outputs, attributes } = op;
  const types = Object.entries(attributes).map(([key, type]) => ({ name: key, type: typeCode(type, binding) }));
  return (call) => {
    const extra = optional && call.inputs[optional];
    const tensors = [...inputs.map((key) => call.inputs[key]!), ...(extra ? [extra] : [])];
    const given = types.map(({ name, type }) => ({ name, type, value: call.attrs![name] as number | string }));
    if (optional) {
      given.push({ name: 'optional', type: binding.TF_ATTR_INT, value: extra ? 1 : 0 });
    }
    const results = (call.backend as TensorFlowBackend).executeMultipleOutputs(
      name,
      given,
      tensors as Tensor[],
      outputs.length,
    );
    return results.length === 1 ? results[0]! : results;
  };
}
