import { InvalidArgumentError } from '../errors.js';
import { concat, encodeLatin1 } from './png.js';

const EXIF_IFD_POINTER = 0x8769;
const USER_COMMENT = 0x9286;
const TYPE_LONG = 4;
const TYPE_UNDEFINED = 7;
/** Most bytes that a JPEG segment can hold beside its own length field. */
const MAX_SEGMENT_BYTES = 65533;
const JPEG_EXIF_MARKER = encodeLatin1('Exif\0\0');

function encodeUtf16(text: string): Uint8Array {
  const out = new Uint8Array(2 * text.length);
  const view = new DataView(out.buffer);
  for (let i = 0; i < text.length; i++) {
    view.setUint16(2 * i, text.charCodeAt(i));
  }
  return out;
}

/** An EXIF block (TIFF structure, big-endian) with `text` as its UserComment in Unicode, as A1111 writes it. */
export function exifWithUserComment(text: string): Uint8Array {
  const comment = concat(encodeLatin1('UNICODE\0'), encodeUtf16(text));
  // Header at 0, first directory at 8 (one entry), EXIF directory at 26 (one entry), the comment after it at 44.
  const out = new Uint8Array(44 + comment.length);
  const view = new DataView(out.buffer);
  out.set(encodeLatin1('MM\0*'));
  view.setUint32(4, 8);
  const entry = (position: number, tag: number, type: number, count: number, value: number): void => {
    view.setUint16(position, 1);
    view.setUint16(position + 2, tag);
    view.setUint16(position + 4, type);
    view.setUint32(position + 6, count);
    view.setUint32(position + 10, value);
  };
  entry(8, EXIF_IFD_POINTER, TYPE_LONG, 1, 26);
  entry(26, USER_COMMENT, TYPE_UNDEFINED, comment.length, 44);
  out.set(comment, 44);
  return out;
}

/** A JPEG with an EXIF block put in after its first marker. */
export function insertJpegExif(jpeg: Uint8Array, exif: Uint8Array): Uint8Array {
  const length = JPEG_EXIF_MARKER.length + exif.length;
  if (length > MAX_SEGMENT_BYTES) {
    throw new InvalidArgumentError(
      `[jpeg] the prompt and settings take ${length} bytes, a JPEG holds ${MAX_SEGMENT_BYTES}; save as PNG or WebP instead`,
    );
  }
  const head = Uint8Array.of(0xff, 0xd8, 0xff, 0xe1, (length + 2) >> 8, (length + 2) & 255);
  return concat(head, JPEG_EXIF_MARKER, exif, jpeg.subarray(2));
}

function riffChunk(type: string, data: Uint8Array): Uint8Array {
  const head = new Uint8Array(8);
  head.set(encodeLatin1(type));
  new DataView(head.buffer).setUint32(4, data.length, true);
  return concat(head, data, new Uint8Array(data.length % 2));
}

/** A WebP of one simple chunk (opaque, still, no metadata) turned into the extended form with an EXIF chunk. */
export function insertWebpExif(webp: Uint8Array, width: number, height: number, exif: Uint8Array): Uint8Array {
  const extended = new Uint8Array(10);
  const view = new DataView(extended.buffer);
  extended[0] = 0x08;
  // three bytes each: the fourth of the width is written over by the height's first, the height's by nothing
  view.setUint32(4, width - 1, true);
  view.setUint16(7, (height - 1) & 0xffff, true);
  extended[9] = (height - 1) >>> 16;
  const chunks = [riffChunk('VP8X', extended), webp.subarray(12), riffChunk('EXIF', exif)];
  return riffChunk('RIFF', concat(encodeLatin1('WEBP'), ...chunks));
}

function decodeComment(data: Uint8Array, bigEndian: boolean): string {
  const text = data.subarray(8);
  switch (new TextDecoder('latin1').decode(data.subarray(0, 8))) {
    case 'UNICODE\0':
      return new TextDecoder(bigEndian ? 'utf-16be' : 'utf-16le').decode(text.subarray(0, text.length & ~1));
    case 'ASCII\0\0\0':
      return withoutNuls(new TextDecoder().decode(text));
    default:
      return withoutNuls(new TextDecoder().decode(data));
  }
}

function withoutNuls(text: string): string {
  let [start, end] = [0, text.length];
  while (start < end && text[start] === '\0') {
    start++;
  }
  while (end > start && text[end - 1] === '\0') {
    end--;
  }
  return text.slice(start, end);
}

/** The UserComment of an EXIF block of either byte order, undefined when there is none. */
export function readUserComment(block: Uint8Array): string | undefined {
  const exif = block.subarray(JPEG_EXIF_MARKER.every((byte, i) => block[i] === byte) ? 6 : 0);
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
  const bigEndian = exif[0] === 0x4d;
  const u16 = (at: number): number => view.getUint16(at, !bigEndian);
  const u32 = (at: number): number => view.getUint32(at, !bigEndian);
  /** Position of the entry of `tag` in the directory at `directory`. */
  const find = (directory: number, tag: number): number | undefined => {
    for (let i = 0; i < u16(directory); i++) {
      const entry = directory + 2 + 12 * i;
      if (u16(entry) === tag) {
        return entry;
      }
    }
    return undefined;
  };
  try {
    const pointer = find(u32(4), EXIF_IFD_POINTER);
    const entry = pointer && find(u32(pointer + 8), USER_COMMENT);
    if (!entry) {
      return undefined;
    }
    const count = u32(entry + 4);
    const start = count <= 4 ? entry + 8 : u32(entry + 8);
    return decodeComment(exif.subarray(start, start + count), bigEndian);
  } catch (error) {
    throw new InvalidArgumentError(`[exif] the block is damaged: ${(error as Error).message}`, { cause: error });
  }
}
