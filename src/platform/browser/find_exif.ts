/** Where EXIF lies in a file: the browser shows only pixels. */

const JPEG_EXIF_MARKER = [0x45, 0x78, 0x69, 0x66, 0, 0];

/** The EXIF block of a JPEG or WebP, undefined when it has none. */
export function findExif(bytes: Uint8Array): Uint8Array | undefined {
  const isWebp = new TextDecoder('latin1').decode(bytes.subarray(0, 12)).replace(/^RIFF....WEBP$/s, '') === '';
  return isWebp ? findRiffExif(bytes) : findJpegExif(bytes);
}

function findRiffExif(bytes: Uint8Array): Uint8Array | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let position = 12; position + 8 <= bytes.length; ) {
    const length = view.getUint32(position + 4, true);
    if (view.getUint32(position) === 0x45584946) {
      return bytes.subarray(position + 8, position + 8 + length);
    }
    position += 8 + length + (length % 2);
  }
  return undefined;
}

function findJpegExif(bytes: Uint8Array): Uint8Array | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) {
    return undefined;
  }
  // segments lie before the scan, which begins with FFDA
  for (let position = 2; position + 4 <= bytes.length && bytes[position] === 0xff && bytes[position + 1] !== 0xda; ) {
    const data = bytes.subarray(position + 4, position + 2 + view.getUint16(position + 2));
    if (bytes[position + 1] === 0xe1 && JPEG_EXIF_MARKER.every((byte, i) => data[i] === byte)) {
      return data;
    }
    position += 2 + Math.max(2, view.getUint16(position + 2));
  }
  return undefined;
}
