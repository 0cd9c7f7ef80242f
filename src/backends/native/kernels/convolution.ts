import * as tf from '@tensorflow/tfjs-core';
import type { Attributes } from '../addon.js';
import { forward } from '../forward.js';
import { applyEpilogue, EPILOGUE } from './activation.js';
import { type KernelArguments, type KernelDefinition, kernel } from './definition.js';

const { backend_util } = tf;

/** Attributes of the native convolution kernels, or undefined for a convolution that they do not do. */
function geometry(
  xShape: number[],
  filterShape: number[],
  attrs: KernelArguments['attrs'],
  dyShape?: number[],
): Attributes | undefined {
  const dataFormat = backend_util.convertConv2DDataFormat(attrs.dataFormat ?? 'NHWC');
  const info = backend_util.computeConv2DInfo(
    xShape as [number, number, number, number],
    filterShape as [number, number, number, number],
    attrs.strides,
    attrs.dilations ?? 1,
    attrs.pad,
    attrs.dimRoundingMode,
    false,
    dataFormat,
  );
  const { top, bottom, left, right } = info.padInfo;
  const length = (n: number, size: number, stride: number, pad: number) => Math.floor((n + pad - size) / stride) + 1;
  const fits =
    dataFormat === 'channelsLast' &&
    [top, bottom, left, right].every((pad) => Number.isInteger(pad) && pad >= 0) &&
    info.inChannels === filterShape[2] &&
    length(info.inHeight, info.effectiveFilterHeight, info.strideHeight, top + bottom) === info.outHeight &&
    length(info.inWidth, info.effectiveFilterWidth, info.strideWidth, left + right) === info.outWidth;
  const expected = [info.batchSize, info.outHeight, info.outWidth, info.outChannels];
  if (!fits || (dyShape && !tf.util.arraysEqual(dyShape, expected))) return undefined;
  return {
    strides: [info.strideHeight, info.strideWidth],
    dilations: [info.dilationHeight, info.dilationWidth],
    pad: [top, bottom, left, right],
  };
}

const allFloat = ({ inputs }: KernelArguments) => Object.values(inputs).every((x) => !x || x.dtype === 'float32');

export const convolution: KernelDefinition[] = [
  kernel('Conv2D', (args) => {
    const { x, filter } = args.inputs;
    const attributes = geometry(x!.shape, filter!.shape, args.attrs);
    if (!attributes || !allFloat(args)) return forward('Conv2D', args);
    return args.backend.run1('Conv2D', [x, filter], attributes);
  }),
  kernel(
    'FusedConv2D',
    (args) => {
      const { inputs, backend, attrs } = args;
      const { x, filter, bias, preluActivationWeights } = inputs;
      const attributes = geometry(x!.shape, filter!.shape, attrs);
      if (!attributes || !allFloat(args)) return forward('FusedConv2D', args);
      const inside = bias && tf.util.sizeFromShape(bias.shape) === filter!.shape[3];
      const sums = backend.run1('Conv2D', [x, filter, inside ? bias : null], attributes);
      const rest = inside ? undefined : bias;
      return applyEpilogue(backend, sums, rest, attrs.activation, preluActivationWeights, attrs.leakyreluAlpha);
    },
    ['Conv2D', ...EPILOGUE],
  ),
  kernel('Conv2DBackpropInput', (args) => {
    const { inputs, backend, attrs } = args;
    const attributes = geometry(attrs.inputShape, inputs.filter!.shape, attrs, inputs.dy!.shape);
    if (!attributes || !allFloat(args)) return forward('Conv2DBackpropInput', args);
    const { inputShape } = attrs;
    return backend.run1('Conv2DBackpropInput', [inputs.dy, inputs.filter], { ...attributes, inputShape });
  }),
  kernel('Conv2DBackpropFilter', (args) => {
    const { inputs, backend, attrs } = args;
    const attributes = geometry(inputs.x!.shape, attrs.filterShape, attrs, inputs.dy!.shape);
    if (!attributes || !allFloat(args)) return forward('Conv2DBackpropFilter', args);
    const { filterShape } = attrs;
    return backend.run1('Conv2DBackpropFilter', [inputs.x, inputs.dy], { ...attributes, filterShape });
  }),
];
