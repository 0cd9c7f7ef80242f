import { InvalidArgumentError } from '../../../errors.js';
import type { Info, NativeBackend } from '../backend.js';

/** The native kernels that an epilogue may need. */
export const EPILOGUE = ['Add', 'Prelu', 'LeakyRelu', 'Relu', 'Relu6', 'Elu', 'Sigmoid'];

const KERNELS: Record<string, string> = { relu: 'Relu', relu6: 'Relu6', elu: 'Elu', sigmoid: 'Sigmoid' };

/** Adds what tfjs-core's fused kernels want after the product: bias and activation. Takes over the reference of x. */
export function applyEpilogue(
  backend: NativeBackend,
  x: Info,
  bias: Info | undefined,
  activation: string | undefined,
  preluWeights: Info | undefined,
  leakyReluAlpha: number | undefined,
): Info {
  let result = x;
  const replace = (next: Info) => {
    backend.dispose1(result);
    result = next;
  };
  if (bias) replace(backend.run1('Add', [result, bias]));
  if (!activation || activation === 'linear') return result;
  if (activation === 'prelu') replace(backend.run1('Prelu', [result, preluWeights]));
  else if (activation === 'leakyrelu') replace(backend.run1('LeakyRelu', [result], { alpha: leakyReluAlpha }));
  else if (KERNELS[activation]) replace(backend.run1(KERNELS[activation], [result]));
  else throw new InvalidArgumentError(`[${backend.name}] activation ${activation} is not supported`);
  return result;
}
