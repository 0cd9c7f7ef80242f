import { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { BackendError } from '../../errors.js';
import type { Info, NativeBackend } from './backend.js';

let cpu: MathBackendCPU | undefined;

/** The cpu backend advises to install tfjs-node when it is first used; here it only helps out. */
function quietCpu(): MathBackendCPU {
  return Object.assign(new MathBackendCPU(), { firstUse: false });
}

type Inputs = Record<string, Info | Info[] | undefined> | Info[];

/** Copies the numbers of a tensor to a backend of its own, which only this file uses. */
function toCpu(info: Info, backend: NativeBackend, temporary: Info[]): Info {
  const { complex } = backend.data(info.dataId);
  let copy: Info;
  if (complex) {
    const real = toCpu({ ...complex.real, shape: info.shape }, backend, temporary);
    const imag = toCpu({ ...complex.imag, shape: info.shape }, backend, temporary);
    copy = tf.getKernel('Complex', 'cpu').kernelFunc({
      inputs: { real, imag } as unknown as tf.NamedTensorInfoMap,
      backend: cpu!,
      attrs: {},
    }) as Info;
  } else {
    copy = cpu!.makeTensorInfo(info.shape, info.dtype, backend.readSync(info.dataId) as tf.TypedArray);
  }
  temporary.push(copy);
  // some kernels of the cpu backend read these two off their inputs as if they were tensors
  return Object.assign(copy, { rank: info.shape.length, size: tf.util.sizeFromShape(info.shape) });
}

function fromCpu(info: Info, backend: NativeBackend): Info {
  const { values, complexTensorInfos } = cpu!.data.get(info.dataId);
  const result = backend.makeTensorInfo(info.shape, info.dtype, (values as tf.BackendValues | undefined) ?? null);
  if (complexTensorInfos) {
    const { real, imag } = complexTensorInfos;
    backend.data(result.dataId).complex = { real: fromCpu(real, backend), imag: fromCpu(imag, backend) };
  }
  return result;
}

/** Runs the kernel of tfjs's cpu backend on copies of the inputs: for kernels and dtypes that have no native one. */
export function forward(
  name: string,
  { inputs, backend, attrs }: { inputs: Inputs; backend: NativeBackend; attrs: unknown },
): Info | Info[] {
  const config = tf.getKernel(name, 'cpu');
  if (!config) throw new BackendError(`[${name}] neither the native addon nor tfjs's cpu backend has this kernel`);
  cpu ??= quietCpu();
  const temporary: Info[] = [];
  const copies = (Array.isArray(inputs) ? [] : {}) as Record<string, Info | Info[]>;
  for (const [key, input] of Object.entries(inputs)) {
    if (Array.isArray(input)) copies[key] = input.map((info) => toCpu(info, backend, temporary));
    else if (input) copies[key] = toCpu(input, backend, temporary);
  }
  const results = config.kernelFunc({
    inputs: copies as unknown as tf.NamedTensorInfoMap,
    backend: cpu,
    attrs: attrs as tf.NamedAttrMap,
  });
  const list = Array.isArray(results) ? results : [results];
  const outputs = list.map((info) => fromCpu(info as Info, backend));
  for (const info of new Set([...temporary, ...(list as Info[])])) {
    if (cpu.data.has(info.dataId)) cpu.disposeData(info.dataId, true);
  }
  return Array.isArray(results) ? outputs : outputs[0]!;
}
