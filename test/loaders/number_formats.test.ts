import { createHash } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { CheckpointError } from '../../src/errors.js';
import {
  decodeToFloat32,
  encodeBFloat16,
  encodeFloat16,
  encodeFromFloat32,
  type StorageType,
} from '../../src/loaders/safetensors/number_formats.js';

const bytesOf = (array: ArrayBufferView): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const allPatterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
const isNaNPattern = (pattern: number, exponentMask: number): boolean =>
  (pattern & exponentMask) === exponentMask && (pattern & ~exponentMask & 0x7fff) !== 0;

/** Values that a half-precision pattern stands for, from the definition of the format. */
function halfByDefinition(pattern: number): number {
  const sign = pattern & 0x8000 ? -1 : 1;
  const exponent = (pattern >> 10) & 31;
  const mantissa = pattern & 1023;
  if (exponent === 31) {
    return mantissa ? Number.NaN : sign * Infinity;
  }
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1024 + mantissa) * 2 ** (exponent - 25);
}

describe('decodeToFloat32', () => {
  test('gives every half-precision pattern its value', () => {
    const decoded = decodeToFloat32(bytesOf(allPatterns), 'F16');
    expect(decoded).toEqual(Float32Array.from(allPatterns, halfByDefinition));
    expect(Object.is(decoded[0x8000], -0)).toBe(true);
  });

  test('gives every bfloat16 pattern the float32 whose upper half it is', () => {
    const decoded = decodeToFloat32(bytesOf(allPatterns), 'BF16');
    const upper = new Uint32Array(decoded.buffer);
    expect(upper).toEqual(Uint32Array.from(allPatterns, (p) => p << 16));
  });

  const cases: [StorageType, ArrayBufferView, number[]][] = [
    ['F32', new Float32Array([1.5, -0.1, 3e38]), [1.5, Math.fround(-0.1), Math.fround(3e38)]],
    ['F64', new Float64Array([0.1, -2, 1e300]), [Math.fround(0.1), -2, Infinity]],
    ['I64', new BigInt64Array([-3n, 76n, 2n ** 40n]), [-3, 76, 2 ** 40]],
    ['I32', new Int32Array([-3, 2 ** 24]), [-3, 2 ** 24]],
    ['I16', new Int16Array([-3, 32767]), [-3, 32767]],
    ['I8', new Int8Array([-128, 127]), [-128, 127]],
    ['U8', new Uint8Array([0, 255]), [0, 255]],
    ['BOOL', new Uint8Array([0, 1]), [0, 1]],
  ];
  test.each(cases)('%s', (dtype, array, expected) => {
    expect([...decodeToFloat32(bytesOf(array), dtype)]).toEqual(expected);
  });

  test.each(cases)('%s from bytes that are not aligned', (dtype, array, expected) => {
    const shifted = new Uint8Array(array.byteLength + 1);
    shifted.set(bytesOf(array), 1);
    expect([...decodeToFloat32(shifted.subarray(1), dtype)]).toEqual(expected);
  });

  test('lays aligned F32 bytes out without a copy', () => {
    const values = new Float32Array([1, 2]);
    expect(decodeToFloat32(bytesOf(values), 'F32').buffer).toBe(values.buffer);
  });

  test('refuses half an element', () => {
    expect(() => decodeToFloat32(new Uint8Array(6), 'F32')).toThrow(CheckpointError);
    expect(() => decodeToFloat32(new Uint8Array(6), 'F32')).toThrow('6 bytes are not a whole number of F32 values');
  });
});

describe('encoders', () => {
  test('half precision keeps every pattern that is not NaN', () => {
    const kept = allPatterns.filter((p) => !isNaNPattern(p, 0x7c00));
    expect(encodeFloat16(decodeToFloat32(bytesOf(kept), 'F16'))).toEqual(kept);
  });

  test('bfloat16 keeps every pattern that is not NaN', () => {
    const kept = allPatterns.filter((p) => !isNaNPattern(p, 0x7f80));
    expect(encodeBFloat16(decodeToFloat32(bytesOf(kept), 'BF16'))).toEqual(kept);
  });

  test.each([
    ['F16', encodeFloat16, 0x7c00],
    ['BF16', encodeBFloat16, 0x7f80],
  ] as const)('%s takes the even neighbour half way and the nearest one beside it', (dtype, encode, infinity) => {
    for (let low = 0; low < infinity - 1; low++) {
      const [a, b] = decodeToFloat32(bytesOf(new Uint16Array([low, low + 1])), dtype);
      const middle = a! / 2 + b! / 2;
      const step = (b! - a!) / 64;
      const even = low % 2 === 0 ? low : low + 1;
      const around = Float32Array.of(middle, -middle, middle - step, middle + step);
      if (around[0] === middle && around[2] !== middle && around[3] !== middle) {
        expect([...encode(around)]).toEqual([even, even | 0x8000, low, low + 1]);
      }
    }
  });

  test('too large becomes infinite, just below does not', () => {
    expect([...encodeFloat16(Float32Array.of(65519.99, 65520, 1e30, -1e30, Infinity))]).toEqual([
      0x7bff, 0x7c00, 0x7c00, 0xfc00, 0x7c00,
    ]);
    expect([...encodeBFloat16(Float32Array.of(3.4e38, -Infinity))]).toEqual([0x7f80, 0xff80]);
  });

  test('NaN stays NaN, also with its mantissa in the low bits alone', () => {
    const bits = new Uint32Array([0x7fc00000, 0x7f800001, 0xff800001]);
    const values = new Float32Array(bits.buffer);
    expect(decodeToFloat32(bytesOf(encodeFloat16(values)), 'F16')).toEqual(Float32Array.of(NaN, NaN, NaN));
    expect(decodeToFloat32(bytesOf(encodeBFloat16(values)), 'BF16')).toEqual(Float32Array.of(NaN, NaN, NaN));
  });

  test('a view into a larger array is encoded alone', () => {
    const values = new Float32Array([9, 1, 2, 9]).subarray(1, 3);
    expect(encodeFromFloat32(values, 'F32')).toEqual(bytesOf(Float32Array.of(1, 2)));
    expect(encodeFromFloat32(values, 'F16')).toEqual(bytesOf(Uint16Array.of(0x3c00, 0x4000)));
    expect(encodeFromFloat32(values, 'BF16')).toEqual(bytesOf(Uint16Array.of(0x3f80, 0x4000)));
  });
});

describe('float8', () => {
  const all = Uint8Array.from({ length: 256 }, (_, i) => i);
  const digest = (values: Float32Array) => createHash('sha256').update(bytesOf(values)).digest('hex');

  test("each byte is torch's number: float8_e4m3fn, float8_e5m2", () => {
    const e4m3 = decodeToFloat32(all, 'F8_E4M3');
    expect([e4m3[1], e4m3[8], e4m3[0x39], e4m3[0x7e], e4m3[0x81]]).toEqual([2 ** -9, 2 ** -6, 1.125, 448, -(2 ** -9)]);
    expect(digest(e4m3.map((x) => (Number.isNaN(x) ? 1e9 : x)))).toBe(
      'ea788c2a434ffb9880005a14b519e592b5fdfc3597303bd707496d64d2d9d4d8',
    );
    const e5m2 = decodeToFloat32(all, 'F8_E5M2').map((x) => (Number.isNaN(x) ? 1e9 : x));
    expect(digest(e5m2.map((x) => (Math.abs(x) === Infinity ? Math.sign(x) * 2e9 : x)))).toBe(
      '07d058c0b7fec16aa7948d41db421aabb283877051e6c783104e4e7c98227586',
    );
  });
});
