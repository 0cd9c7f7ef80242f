import * as tf from '@tensorflow/tfjs-core';
import { BackendError } from '../../errors.js';
import type { FloatStorageType } from '../types.js';
import type { DeviceBuffer } from './buffers.js';
import type { CommandQueue } from './queue.js';
import { type ElementType, flatGroups, flatMain, param, typeOf } from './wgsl.js';
import type { Info, Work } from './work.js';

/** Numbers of JavaScript as a buffer holds them; zeros for null. */
export function encode(values: tf.BackendValues | null, type: ElementType, size: number): Float32Array | Int32Array {
  if (type === 'f16') {
    throw new BackendError('[webgpu] numbers of JavaScript are uploaded as float32');
  }
  const Numbers = type === 'f32' ? Float32Array : Int32Array;
  if (values instanceof Numbers && values.byteLength > 0) {
    return values;
  }
  const result = new Numbers(Math.max(1, size));
  if (values) {
    result.set(values as ArrayLike<number>);
  }
  return result;
}

/** What a buffer holds as an array of JavaScript; float16 as float32, bools as bytes. */
export function decode(
  bytes: ArrayBufferLike,
  { dtype, type, size }: { dtype: tf.DataType; type: ElementType; size: number },
): Float32Array | Int32Array | Uint8Array {
  if (dtype === 'float32') {
    return type === 'f16' ? fromHalf(new Uint16Array(bytes, 0, size)) : new Float32Array(bytes, 0, size);
  }
  const integers = new Int32Array(bytes, 0, size);
  return dtype === 'int32' ? integers : Uint8Array.from(integers);
}

let halves: Float32Array | undefined;

/** All 65536 numbers of float16. */
function halfTable(): Float32Array {
  return Float32Array.from({ length: 65536 }, (_, bits) => {
    const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    if (exponent === 31) {
      return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    }
    return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
}

function fromHalf(bits: Uint16Array): Float32Array {
  halves ??= halfTable();
  const table = halves;
  return Float32Array.from(bits, (half) => table[half]!);
}

/** What of a backend writing weights needs. */
interface WeightWriter {
  readonly queue: Pick<CommandQueue, 'write' | 'flush'>;
  data(dataId: object): { type: ElementType; buffer: DeviceBuffer | null };
  typeOf(info: Info): ElementType;
  makeTensorInfo(shape: number[], dtype: tf.DataType, values: tf.BackendValues | null): Info;
  disposeInfo(info: Info): void;
  run(work: Work): void;
}

/** Bytes of a checkpoint that are on their way at a time. */
const PIECE = 32 * 2 ** 20;

/** Number i of the words of a checkpoint. */
const READ: Record<FloatStorageType, string> = {
  F32: 'bitcast<f32>(word(i))',
  F16: 'unpack2x16float(word(i / 2u))[i % 2u]',
  BF16: 'bitcast<f32>((word(i / 2u) >> (16u * (i % 2u))) << 16u)',
};

/**
 * Fills a tensor with the numbers of a checkpoint: raw bytes go to the GPU in pieces, a shader there converts and permutes
 * them, so that JavaScript never holds a converted copy.
 *
 * @param shape of the numbers in `bytes`
 * @param permutation axes of `result` in terms of `shape`
 */
export function uploadWeights(
  backend: WeightWriter,
  result: Info,
  bytes: Uint8Array,
  storage: FloatStorageType,
  shape: number[],
  permutation = shape.map((_, i) => i),
): void {
  const plain = permutation.every((axis, i) => axis === i);
  const data = backend.data(result.dataId);
  if (plain && storage === 'F32' && data.type === 'f32' && bytes.byteLength > 0) {
    backend.queue.write(data.buffer!, bytes);
    return;
  }
  for (let at = 0; at < bytes.byteLength; at += PIECE) {
    const end = Math.min(bytes.byteLength, at + PIECE);
    convertPiece(backend, result, bytes.subarray(at, end), at, storage, shape, permutation);
  }
}

function convertPiece(
  backend: WeightWriter,
  result: Info,
  piece: Uint8Array,
  at: number,
  storage: FloatStorageType,
  shape: number[],
  permutation: number[],
): void {
  const each = storage === 'F32' ? 4 : 2;
  const words = new Int32Array(Math.ceil(piece.byteLength / 4));
  new Uint8Array(words.buffer).set(piece);
  const source = backend.makeTensorInfo([words.length], 'int32', words);
  const strides = tf.util.computeStrides(result.shape).concat(1);
  // where a step along each axis of the checkpoint leads in the result
  const steps = shape.map((_, axis) => strides[permutation.indexOf(axis)]!);
  const axes = shape.map((_, axis) => axis).reverse();
  const scatter = (axis: number) => {
    const [size, step] = [param(2 + axis), param(2 + shape.length + axis)];
    return `to += (rest % ${size}) * ${step}; rest /= ${size};`;
  };
  const type = typeOf({ type: backend.typeOf(result), width: 1 });
  backend.run({
    kernel: 'FromBytes',
    key: `${storage}${shape.length}`,
    code: () => `fn word(i: u32) -> u32 { return bitcast<u32>(source[i]); }
${flatMain(`
  var rest = i + ${param(1)};
  var to = 0u;
  ${axes.map(scatter).join('\n  ')}
  result[to] = ${type}(${READ[storage]});`)}`,
    inputs: [{ name: 'source', of: source }],
    outputs: [{ name: 'result', of: result }],
    params: [piece.byteLength / each, at / each, ...shape, ...steps],
    groups: flatGroups(piece.byteLength / each),
  });
  backend.disposeInfo(source);
  // the staging buffer can only be written again once this piece is under way
  backend.queue.flush();
}
