import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';

const ADDON = 'build/native/cuda.node';
const DESCRIBE =
  'const m = { exports: {} }; process.dlopen(m, process.argv[1]);' +
  'console.log(JSON.stringify({ ...m.exports.describe(), kernels: m.exports.kernels }))';

function describeAddon(env: Record<string, string> = {}): Record<string, unknown> {
  const text = execFileSync(process.execPath, ['-e', DESCRIBE, ADDON], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  return JSON.parse(text) as Record<string, unknown>;
}

/** The names under which the processor's sources register their kernels. */
function kernelsOf(folder: string): string[] {
  const sources = readdirSync(folder).filter((file) => file.endsWith('.cc'));
  const text = sources.map((file) => readFileSync(`${folder}/${file}`, 'utf8')).join('');
  return [...text.matchAll(/registry\.add\("(\w+)"/g)].map(([, name]) => name!);
}

const hasDriver = existsSync('/dev/nvidiactl');

(existsSync(ADDON) ? describe : describe.skip)('the addon for GPUs (node scripts/build_cuda.mjs --card)', () => {
  test('has every kernel of the processor', () => {
    const processor = kernelsOf('native/cpu');
    expect(processor).toContain('MemoryEfficientAttention');
    expect(describeAddon().kernels).toEqual(expect.arrayContaining(processor));
  });

  test('loads without a driver and says what is missing', () => {
    if (hasDriver) {
      return;
    }
    expect(describeAddon().problem).toBe(
      'there is no NVIDIA driver here: libcuda.so.1 was not found; install the NVIDIA driver (525.60 or newer)',
    );
  });

  test('links nothing but what every system has', () => {
    const needed = execFileSync('readelf', ['-d', ADDON], { encoding: 'utf8' }).match(/NEEDED.*\[(.*)\]/g) ?? [];
    for (const line of needed) {
      expect(line).toMatch(/\[(libstdc\+\+|libm|libgcc_s|libc|libdl|libpthread|ld-linux.*)\.so\.\d+\]/);
    }
  });
});
