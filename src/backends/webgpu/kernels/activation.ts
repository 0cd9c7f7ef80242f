import { InvalidArgumentError } from '../../../errors.js';
import type { Info, WebGpuBackend } from '../backend.js';
import { BINARY, UNARY } from '../math.js';
import { promote } from './definition.js';
import { pointwise } from './elementwise.js';

const KERNELS: Record<string, string> = { relu: 'Relu', relu6: 'Relu6', elu: 'Elu', sigmoid: 'Sigmoid' };

/** Adds what tfjs-core's fused kernels want after the product: bias and activation. Takes over the reference of x. */
export function applyEpilogue(
  backend: WebGpuBackend,
  x: Info,
  bias: Info | undefined,
  activation: string | undefined,
  preluWeights: Info | undefined,
  leakyReluAlpha: number | undefined,
): Info {
  let result = x;
  const apply = (kernel: string, expression: string, other?: Info, constants?: number[]) => {
    const type = other ? promote(backend, result, other) : backend.typeOf(result);
    const operands = other ? [result, other] : [result];
    const common = { kernel, expression, compute: 'f32', operands, shape: result.shape, constants } as const;
    const next = pointwise(backend, { ...common, dtype: 'float32', type });
    backend.disposeInfo(result);
    result = next;
  };
  if (bias) {
    apply('Add', BINARY.Add!, bias);
  }
  if (!activation || activation === 'linear') {
    return result;
  }
  if (activation === 'prelu') {
    apply('Prelu', BINARY.Prelu!, preluWeights!);
  } else if (activation === 'leakyrelu') {
    apply('LeakyRelu', UNARY.LeakyRelu!, undefined, [leakyReluAlpha ?? 0]);
  } else if (KERNELS[activation]) {
    apply(KERNELS[activation], UNARY[KERNELS[activation]]!);
  } else {
    throw new InvalidArgumentError(
      `[webgpu] activation expects prelu, leakyrelu, ${Object.keys(KERNELS)}, got ${activation}`,
    );
  }
  return result;
}
