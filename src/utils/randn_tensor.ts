import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import { invalid } from './check.js';
import { TorchGenerator } from './torch_generator.js';

/**
 * Standard normal numbers of an N,H,W,C shape, drawn in torch's N,C,H,W order and transposed, so that a seed gives the
 * noise that it gives in Python (diffusers/utils/torch_utils.py, `randn_tensor`).
 *
 * @param shape of the result. Of four and more axes the last one is the channels, which torch has second; shorter
 *   shapes are drawn as they are.
 * @param generator one generator for the whole batch, or a list with one per batch item.
 * @returns a float32 tensor that the caller owns.
 * @throws InvalidArgumentError when a list has another length than the batch (a list of one serves any batch).
 */
export function randnTensor<R extends tf.Rank = tf.Rank.R4>(
  shape: readonly number[],
  generator: TorchGenerator | readonly TorchGenerator[],
): tf.Tensor<R> {
  const torchShape = shape.length < 4 ? [...shape] : [shape[0]!, shape[shape.length - 1]!, ...shape.slice(1, -1)];
  return fromTorchOrder(draw(torchShape, generator), shape);
}

/**
 * Numbers in torch's order, N,C,H,W, as a tensor of an N,H,W,C shape; as they are when it has fewer than four axes.
 * @returns a float32 tensor that the caller owns.
 */
export function fromTorchOrder<R extends tf.Rank>(data: Float32Array, shape: readonly number[]): tf.Tensor<R> {
  if (shape.length < 4) {
    return tf.tensor<tf.Rank>(data, [...shape], 'float32') as tf.Tensor<R>;
  }
  const torchShape = [shape[0]!, shape[shape.length - 1]!, ...shape.slice(1, -1)];
  const tensor = tf.tensor(data, torchShape, 'float32');
  const transposed = tf.transpose(tensor, [0, ...shape.slice(2).map((_, i) => i + 2), 1]);
  tensor.dispose();
  return transposed as tf.Tensor<R>;
}

function draw(shape: readonly number[], generator: TorchGenerator | readonly TorchGenerator[]): Float32Array {
  const generators = Array.isArray(generator) ? (generator as readonly TorchGenerator[]) : undefined;
  if (![generator].flat().every((item: unknown) => item instanceof TorchGenerator)) {
    throw invalid('randnTensor', 'generator', 'a TorchGenerator, or one for each item of the batch', generator);
  }
  if (generators === undefined || generators.length === 1) {
    return (generators?.[0] ?? (generator as TorchGenerator)).randn(shape);
  }
  const batch = shape[0]!;
  if (generators.length !== batch) {
    throw new InvalidArgumentError(
      `[randnTensor] expects one generator, or one per batch item (${batch}), got a list of ${generators.length}`,
    );
  }
  const itemShape = [1, ...shape.slice(1)];
  const items = generators.map((g) => g.randn(itemShape));
  const out = new Float32Array(items.reduce((size, item) => size + item.length, 0));
  items.reduce((offset, item) => {
    out.set(item, offset);
    return offset + item.length;
  }, 0);
  return out;
}
