// Damaged safetensors files: headers and bodies.
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openSafetensors } from '../../../dist/index.js';

const HEADER = {
  __metadata__: { format: 'pt' },
  a: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
  b: { dtype: 'BF16', shape: [4], data_offsets: [24, 32] },
};

function file(header, body, length) {
  const bytes = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(length ?? BigInt(bytes.length));
  return Buffer.concat([size, bytes, body]);
}

export function setUp() {
  const dir = mkdtempSync(join(tmpdir(), 'tfjs-diffusers-fuzz-'));
  return {
    path: join(dir, 'file.safetensors'),
    real: readFileSync('weights/tiny-shapes/text_encoder/model.safetensors').subarray(0, 20_000),
  };
}

function hostile(random, real) {
  switch (random.integer(0, 3)) {
    case 0:
      return random.damage(real.subarray(0, random.integer(0, real.length)));
    case 1:
      return file(random.damageJson(HEADER), random.bytes(32));
    case 2:
      return file(
        HEADER,
        random.bytes(random.integer(0, 64)),
        random.of([undefined, 0n, 1n, 2n ** 32n, 2n ** 63n, 2n ** 64n - 1n]),
      );
    default:
      return random.damage(file(HEADER, random.bytes(32)));
  }
}

export async function trial(random, { path, real }) {
  writeFileSync(path, hostile(random, real));
  const opened = await openSafetensors(path);
  try {
    for (const key of opened.keys().slice(0, 20)) {
      await opened.read(key);
    }
  } finally {
    await opened.close();
  }
}
