import { CheckpointError } from '../../errors.js';

/** Number types that a checkpoint stores, under safetensors' names. */
export type StorageType =
  | 'F64'
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'F8_E4M3'
  | 'F8_E5M2'
  | 'I64'
  | 'I32'
  | 'I16'
  | 'I8'
  | 'U8'
  | 'BOOL';

/** Bytes of one number of each type. */
export const BYTES_PER_ELEMENT: Readonly<Record<StorageType, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

let halfTable: Float32Array | undefined;

/** Value of each of the 65536 half-precision bit patterns (IEEE 754 binary16). */
function halfToFloat(): Float32Array {
  if (halfTable) {
    return halfTable;
  }
  const bits = new Uint32Array(65536);
  const table = new Float32Array(bits.buffer);
  for (let h = 0; h < 65536; h++) {
    const sign = (h & 0x8000) << 16;
    const exponent = (h >> 10) & 31;
    const mantissa = h & 1023;
    if (exponent === 0) {
      table[h] = (sign ? -1 : 1) * mantissa * 2 ** -24;
    } else if (exponent === 31) {
      bits[h] = sign | 0x7f800000 | (mantissa << 13);
    } else {
      bits[h] = sign | ((exponent + 112) << 23) | (mantissa << 13);
    }
  }
  halfTable = table;
  return table;
}

let e4m3Table: Float32Array | undefined;

/** Value of each byte as a float8 of 4 bits of exponent and 3 of mantissa, without infinities (Micikevicius et al. 2022). */
function e4m3ToFloat(): Float32Array {
  e4m3Table ??= Float32Array.from({ length: 256 }, (_, byte) => {
    const exponent = (byte >> 3) & 15;
    const mantissa = byte & 7;
    const size = exponent === 0 ? mantissa * 2 ** -9 : (8 + mantissa) * 2 ** (exponent - 10);
    return (byte & 0x7f) === 0x7f ? Number.NaN : byte & 0x80 ? -size : size;
  });
  return e4m3Table;
}

/** The bytes as typed array elements, in place where their alignment allows it. */
function elements<T>(
  bytes: Uint8Array,
  type: { new (buffer: ArrayBufferLike, offset: number, length: number): T; BYTES_PER_ELEMENT: number },
): T {
  const size = type.BYTES_PER_ELEMENT;
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return new type(aligned.buffer, aligned.byteOffset, aligned.byteLength / size);
}

/**
 * The numbers of a tensor as float32. F32 bytes are not copied when they are aligned: the result then shares their memory.
 * I64 and F64 round to the nearest float32.
 * @throws {CheckpointError} when the bytes are not a whole number of elements
 */
export function decodeToFloat32(bytes: Uint8Array, dtype: StorageType): Float32Array {
  const size = BYTES_PER_ELEMENT[dtype];
  if (bytes.byteLength % size !== 0) {
    throw new CheckpointError(
      `${bytes.byteLength} bytes are not a whole number of ${dtype} values (${size} bytes each)`,
    );
  }
  switch (dtype) {
    case 'F32':
      return elements(bytes, Float32Array);
    case 'F16': {
      const table = halfToFloat();
      const from = elements(bytes, Uint16Array);
      const out = new Float32Array(from.length);
      for (let i = 0; i < from.length; i++) {
        out[i] = table[from[i]!]!;
      }
      return out;
    }
    case 'BF16': {
      const from = elements(bytes, Uint16Array);
      const bits = new Uint32Array(from.length);
      for (let i = 0; i < from.length; i++) {
        bits[i] = from[i]! << 16;
      }
      return new Float32Array(bits.buffer);
    }
    case 'F8_E4M3': {
      const table = e4m3ToFloat();
      return Float32Array.from(bytes, (byte) => table[byte]!);
    }
    case 'F8_E5M2': {
      // the upper half of a half-precision number
      const table = halfToFloat();
      return Float32Array.from(bytes, (byte) => table[byte << 8]!);
    }
    case 'I64':
      return Float32Array.from(elements(bytes, BigInt64Array), Number);
    case 'F64':
      return Float32Array.from(elements(bytes, Float64Array));
    case 'I32':
      return Float32Array.from(elements(bytes, Int32Array));
    case 'I16':
      return Float32Array.from(elements(bytes, Int16Array));
    case 'I8':
      return Float32Array.from(elements(bytes, Int8Array));
    case 'U8':
    case 'BOOL':
      return Float32Array.from(bytes);
  }
}

/** Bit patterns of the nearest half-precision numbers, ties to even, as torch's `.half()`: too large becomes infinite. */
export function encodeFloat16(values: Float32Array): Uint16Array {
  const bits = elements(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), Uint32Array);
  const out = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const sign = (bits[i]! >>> 16) & 0x8000;
    const magnitude = bits[i]! & 0x7fffffff;
    if (magnitude > 0x7f800000) {
      out[i] = sign | 0x7e00;
    } else if (magnitude >= 0x477ff000) {
      out[i] = sign | 0x7c00;
    } else if (magnitude >= 0x38800000) {
      // Adding just under half of the last kept place, and its parity, carries exactly when rounding up is due.
      out[i] = sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
    } else {
      // Beside 0.5 a float32 keeps just the places that a half-precision subnormal has.
      out[i] = sign | ((Math.fround(Math.abs(values[i]!) + 0.5) - 0.5) * 2 ** 24);
    }
  }
  return out;
}

/** Bit patterns of the nearest bfloat16 numbers, ties to even, as torch's `.bfloat16()`. */
export function encodeBFloat16(values: Float32Array): Uint16Array {
  const bits = elements(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), Uint32Array);
  const out = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i]!;
    out[i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
  return out;
}

/** `values` as the little-endian bytes of a floating-point storage type. */
export function encodeFromFloat32(values: Float32Array, dtype: 'F32' | 'F16' | 'BF16'): Uint8Array {
  const encoded = dtype === 'F16' ? encodeFloat16(values) : dtype === 'BF16' ? encodeBFloat16(values) : values;
  return new Uint8Array(encoded.buffer, encoded.byteOffset, encoded.byteLength);
}
