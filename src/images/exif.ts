import { InvalidArgumentError } from '../errors.js';

const EXIF_IFD_POINTER = 0x8769;
const USER_COMMENT = 0x9286;
const TYPE_LONG = 4;
const TYPE_UNDEFINED = 7;
/** Most bytes that a JPEG segment can hold beside its own length field. */
const MAX_SEGMENT_BYTES = 65533;
const JPEG_EXIF_MARKER = Buffer.from('Exif\0\0', 'latin1');

/** An EXIF block (TIFF structure, big-endian) with `text` as its UserComment in Unicode, as A1111 writes it. */
export function exifWithUserComment(text: string): Buffer {
  const comment = Buffer.concat([Buffer.from('UNICODE\0', 'latin1'), Buffer.from(text, 'utf16le').swap16()]);
  // Header at 0, first directory at 8 (one entry), EXIF directory at 26 (one entry), the comment after it at 44.
  const out = Buffer.alloc(44 + comment.length);
  out.write('MM\0*', 0, 'latin1');
  out.writeUInt32BE(8, 4);
  const entry = (position: number, tag: number, type: number, count: number, value: number): void => {
    out.writeUInt16BE(1, position);
    out.writeUInt16BE(tag, position + 2);
    out.writeUInt16BE(type, position + 4);
    out.writeUInt32BE(count, position + 6);
    out.writeUInt32BE(value, position + 10);
  };
  entry(8, EXIF_IFD_POINTER, TYPE_LONG, 1, 26);
  entry(26, USER_COMMENT, TYPE_UNDEFINED, comment.length, 44);
  comment.copy(out, 44);
  return out;
}

/** A JPEG with an EXIF block put in after its first marker. */
export function insertJpegExif(jpeg: Buffer, exif: Buffer): Buffer {
  const length = JPEG_EXIF_MARKER.length + exif.length;
  if (length > MAX_SEGMENT_BYTES) {
    throw new InvalidArgumentError(
      `[jpeg] the prompt and settings take ${length} bytes, a JPEG holds ${MAX_SEGMENT_BYTES}; save as PNG or WebP instead`,
    );
  }
  const head = Buffer.from([0xff, 0xd8, 0xff, 0xe1, (length + 2) >> 8, (length + 2) & 255]);
  return Buffer.concat([head, JPEG_EXIF_MARKER, exif, jpeg.subarray(2)]);
}

function riffChunk(type: string, data: Uint8Array): Buffer {
  const head = Buffer.alloc(8);
  head.write(type, 0, 'latin1');
  head.writeUInt32LE(data.length, 4);
  return Buffer.concat([head, data, Buffer.alloc(data.length % 2)]);
}

/** A WebP of one simple chunk (opaque, still, no metadata) turned into the extended form with an EXIF chunk. */
export function insertWebpExif(webp: Buffer, width: number, height: number, exif: Buffer): Buffer {
  const extended = Buffer.alloc(10);
  extended[0] = 0x08;
  extended.writeUIntLE(width - 1, 4, 3);
  extended.writeUIntLE(height - 1, 7, 3);
  return riffChunk(
    'RIFF',
    Buffer.concat([Buffer.from('WEBP'), riffChunk('VP8X', extended), webp.subarray(12), riffChunk('EXIF', exif)]),
  );
}

function decodeComment(data: Buffer, bigEndian: boolean): string {
  const text = data.subarray(8);
  switch (data.toString('latin1', 0, 8)) {
    case 'UNICODE\0': {
      const even = Buffer.from(text.subarray(0, text.length & ~1));
      return (bigEndian ? even.swap16() : even).toString('utf16le').replace(/^\uFEFF/, '');
    }
    case 'ASCII\0\0\0':
      return text.toString('utf8').replace(/\0+$/, '');
    default:
      return data.toString('utf8').replace(/^\0+|\0+$/g, '');
  }
}

/** The UserComment of an EXIF block of either byte order, undefined when there is none. */
export function readUserComment(block: Buffer): string | undefined {
  const exif = block.subarray(block.subarray(0, 6).equals(JPEG_EXIF_MARKER) ? 6 : 0);
  const bigEndian = exif.toString('latin1', 0, 2) === 'MM';
  const u16 = (at: number): number => (bigEndian ? exif.readUInt16BE(at) : exif.readUInt16LE(at));
  const u32 = (at: number): number => (bigEndian ? exif.readUInt32BE(at) : exif.readUInt32LE(at));
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
