import { asBuffer, images } from '#platform';
import { InvalidArgumentError } from '../errors.js';

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** Signature and IHDR chunk, which open every PNG. */
const HEAD_BYTES = 33;
/** Limit on one text, however it is stored: a prompt of a million words is shorter. */
const MAX_TEXT_BYTES = 16 * 2 ** 20;

const latin1 = new TextDecoder('latin1');
const utf8 = new TextDecoder('utf-8');

export function isPng(bytes: Uint8Array): boolean {
  return bytes.length >= HEAD_BYTES && SIGNATURE.every((byte, i) => bytes[i] === byte);
}

/** Code points up to 255 as bytes. */
export function encodeLatin1(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let position = 0;
  for (const part of parts) {
    out.set(part, position);
    position += part.length;
  }
  return out;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let c = byte;
  for (let bit = 0; bit < 8; bit++) {
    c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  }
  return c;
});

/** The checksum of PNG's chunks (PNG specification, annex D). */
function crc32(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (const byte of bytes) {
    c = CRC_TABLE[(c ^ byte) & 255]! ^ (c >>> 8);
  }
  return ~c >>> 0;
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function chunk(type: string, data: Uint8Array): Uint8Array {
  const out = new Uint8Array(12 + data.length);
  const view = viewOf(out);
  view.setUint32(0, data.length);
  out.set(encodeLatin1(type), 4);
  out.set(data, 8);
  view.setUint32(8 + data.length, crc32(out.subarray(4, 8 + data.length)));
  return out;
}

/** A text chunk as PIL writes it: tEXt where Latin-1 suffices, iTXt (UTF-8) otherwise. */
function textChunk(key: string, text: string): Uint8Array {
  if (!/^[\x20-\x7e\xa1-\xff]{1,79}$/.test(key) || key !== key.trim()) {
    throw new InvalidArgumentError(`[png] a metadata key has 1 to 79 Latin-1 characters, got ${JSON.stringify(key)}`);
  }
  // A NUL would end the text early for some readers and is an error for others.
  const clean = text.replaceAll('\0', '');
  const isLatin1 = !/[^\0-\xff]/.test(clean);
  return isLatin1
    ? chunk('tEXt', encodeLatin1(`${key}\0${clean}`))
    : chunk('iTXt', concat(encodeLatin1(`${key}\0\0\0\0\0`), new TextEncoder().encode(clean)));
}

/** A PNG with text chunks put in after its header. */
export function insertPngText(png: Uint8Array, metadata: Readonly<Record<string, string>>): Uint8Array {
  const texts = Object.entries(metadata).map(([key, text]) => textChunk(key, text));
  return concat(png.subarray(0, HEAD_BYTES), ...texts, png.subarray(HEAD_BYTES));
}

/** What a zlib stream unfolds to, up to the limit. */
async function inflate(bytes: Uint8Array): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream('deflate'));
  const reader = stream.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    size += part.value.length;
    if (size > MAX_TEXT_BYTES) {
      await reader.cancel();
      throw new Error(`its text unfolds to more than ${MAX_TEXT_BYTES} bytes`);
    }
    parts.push(part.value);
  }
  return concat(...parts);
}

/** Position of the NUL that ends a field. */
function endOf(data: Uint8Array, from: number): number {
  const end = data.indexOf(0, from);
  if (end < 0) {
    throw new Error('a text chunk does not end its fields');
  }
  return end;
}

/** The text of a tEXt, zTXt or iTXt chunk whose key ends at `keyEnd`. */
async function decodeText(type: string, data: Uint8Array, keyEnd: number): Promise<string> {
  if (type === 'tEXt') {
    return decodeLatin1(data.subarray(keyEnd + 1));
  }
  if (type === 'zTXt') {
    return decodeLatin1(await inflate(data.subarray(keyEnd + 2)));
  }
  const isCompressed = data[keyEnd + 1] === 1;
  const text = data.subarray(endOf(data, endOf(data, keyEnd + 3) + 1) + 1);
  return utf8.decode(isCompressed ? await inflate(text) : text);
}

/** ISO 8859-1 proper: TextDecoder's 'latin1' is Windows's, which has letters where this has control characters. */
function decodeLatin1(bytes: Uint8Array): string {
  if (bytes.length > MAX_TEXT_BYTES) {
    throw new Error(`its text has more than ${MAX_TEXT_BYTES} bytes`);
  }
  let text = '';
  for (let i = 0; i < bytes.length; i += 8192) {
    text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  }
  return text;
}

/**
 * The text of one key of a PNG's metadata (tEXt, zTXt and iTXt chunks), the first where it comes twice; undefined when
 * there is none. Other texts are not unfolded.
 * @throws {InvalidArgumentError} when the chunks do not follow the format or the text is larger than any real one
 */
export async function readPngText(png: Uint8Array, key: string): Promise<string | undefined> {
  const view = viewOf(png);
  const wanted = encodeLatin1(`${key}\0`);
  try {
    for (let position = 8; position < png.length; ) {
      const length = view.getUint32(position);
      const type = latin1.decode(png.subarray(position + 4, position + 8));
      if (position + 12 + length > png.length) {
        throw new Error(`a chunk of ${length} bytes goes beyond the end`);
      }
      const data = png.subarray(position + 8, position + 8 + length);
      if (type === 'IEND') {
        break;
      }
      if (['tEXt', 'zTXt', 'iTXt'].includes(type) && wanted.every((byte, i) => data[i] === byte)) {
        return await decodeText(type, data, wanted.length - 1);
      }
      position += 12 + length;
    }
  } catch (error) {
    throw new InvalidArgumentError(`[png] the file is damaged: ${(error as Error).message}`, { cause: error });
  }
  return undefined;
}

/** Encodes 8-bit RGB pixels at once, without waiting, for callers that cannot await a codec. */
export function encodePngSync(rgb: Uint8Array, width: number, height: number): Uint8Array {
  const header = new Uint8Array(13);
  viewOf(header).setUint32(0, width);
  viewOf(header).setUint32(4, height);
  header.set([8, 2, 0, 0, 0], 8);
  const rowBytes = 3 * width;
  const rows = new Uint8Array((rowBytes + 1) * height);
  for (let y = 0; y < height; y++) {
    rows.set(rgb.subarray(y * rowBytes, (y + 1) * rowBytes), y * (rowBytes + 1) + 1);
  }
  const signature = Uint8Array.from(SIGNATURE);
  const data = chunk('IDAT', images.deflateSync(rows));
  return asBuffer(concat(signature, chunk('IHDR', header), data, chunk('IEND', new Uint8Array(0))));
}
