import { crc32, deflateSync, inflateSync } from 'node:zlib';
import { InvalidArgumentError } from '../errors.js';

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
/** Signature and IHDR chunk, which open every PNG. */
const HEAD_BYTES = 33;
/** Limit on the text that a compressed chunk may unfold to. */
const MAX_TEXT_BYTES = 16 * 2 ** 20;

export function isPng(bytes: Uint8Array): boolean {
  return bytes.length >= HEAD_BYTES && SIGNATURE.equals(bytes.subarray(0, 8));
}

function chunk(type: string, data: Uint8Array): Buffer {
  const out = Buffer.alloc(12 + data.length);
  out.writeUInt32BE(data.length);
  out.write(type, 4, 'latin1');
  out.set(data, 8);
  out.writeUInt32BE(crc32(out.subarray(4, 8 + data.length)), 8 + data.length);
  return out;
}

/** A text chunk as PIL writes it: tEXt where Latin-1 suffices, iTXt (UTF-8) otherwise. */
function textChunk(key: string, text: string): Buffer {
  if (!/^[\x20-\x7e\xa1-\xff]{1,79}$/.test(key) || key !== key.trim()) {
    throw new InvalidArgumentError(`[png] a metadata key has 1 to 79 Latin-1 characters, got ${JSON.stringify(key)}`);
  }
  // A NUL would end the text early for some readers and is an error for others.
  const clean = text.replaceAll('\0', '');
  const isLatin1 = !/[^\0-\xff]/.test(clean);
  return isLatin1
    ? chunk('tEXt', Buffer.from(`${key}\0${clean}`, 'latin1'))
    : chunk('iTXt', Buffer.concat([Buffer.from(`${key}\0\0\0\0\0`, 'latin1'), Buffer.from(clean, 'utf8')]));
}

/** A PNG with text chunks put in after its header. */
export function insertPngText(png: Uint8Array, metadata: Readonly<Record<string, string>>): Buffer {
  const texts = Object.entries(metadata).map(([key, text]) => textChunk(key, text));
  return Buffer.concat([png.subarray(0, HEAD_BYTES), ...texts, png.subarray(HEAD_BYTES)]);
}

/** Key and text of a tEXt, zTXt or iTXt chunk. */
function decodeText(type: string, data: Buffer): [string, string] {
  const inflate = (bytes: Buffer): Buffer => inflateSync(bytes, { maxOutputLength: MAX_TEXT_BYTES });
  const keyEnd = data.indexOf(0);
  const key = data.toString('latin1', 0, keyEnd);
  if (type === 'tEXt') {
    return [key, data.toString('latin1', keyEnd + 1)];
  }
  if (type === 'zTXt') {
    return [key, inflate(data.subarray(keyEnd + 2)).toString('latin1')];
  }
  const compressed = data[keyEnd + 1] === 1;
  const languageEnd = data.indexOf(0, keyEnd + 3);
  const text = data.subarray(data.indexOf(0, languageEnd + 1) + 1);
  return [key, (compressed ? inflate(text) : text).toString('utf8')];
}

/**
 * The text metadata of a PNG (tEXt, zTXt and iTXt chunks); of a key that comes twice the first.
 * @throws {InvalidArgumentError} when the chunks do not follow the format
 */
export function readPngText(bytes: Uint8Array): Record<string, string> {
  const png = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = new Map<string, string>();
  try {
    for (let position = 8; position < png.length; ) {
      const length = png.readUInt32BE(position);
      const type = png.toString('latin1', position + 4, position + 8);
      if (position + 12 + length > png.length) {
        throw new Error(`a chunk of ${length} bytes goes beyond the end`);
      }
      if (type === 'IEND') {
        break;
      }
      if (type === 'tEXt' || type === 'zTXt' || type === 'iTXt') {
        const [key, text] = decodeText(type, png.subarray(position + 8, position + 8 + length));
        found.set(key, found.get(key) ?? text);
      }
      position += 12 + length;
    }
  } catch (error) {
    throw new InvalidArgumentError(`[png] the file is damaged: ${(error as Error).message}`, { cause: error });
  }
  return Object.fromEntries(found);
}

/** Encodes 8-bit RGB pixels at once, without waiting, for callers that cannot await sharp. */
export function encodePngSync(rgb: Uint8Array, width: number, height: number): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const rowBytes = 3 * width;
  const rows = Buffer.alloc((rowBytes + 1) * height);
  for (let y = 0; y < height; y++) {
    rows.set(rgb.subarray(y * rowBytes, (y + 1) * rowBytes), y * (rowBytes + 1) + 1);
  }
  return Buffer.concat([
    SIGNATURE,
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(rows, { level: 6 })),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}
