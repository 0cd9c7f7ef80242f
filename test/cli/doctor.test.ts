import { describe, expect, test } from '@jest/globals';
import { runCli } from './support.js';

describe('doctor', () => {
  test('says which backends work, where models are kept and what would help', async () => {
    const { code, stdout, stderr } = await runCli(['doctor'], { env: { TFJS_DIFFUSERS_NATIVE: '0', HF_HOME: '/hub' } });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^versions +tfjs-diffusers \S+, @tensorflow\/tfjs-core \S+, node \S+$/m);
    expect(stdout).toMatch(/^processor +.+ threads/m);
    expect(stdout).toMatch(/^onednn +does not work: .*TFJS_DIFFUSERS_NATIVE/m);
    expect(stdout).toMatch(/^wasm +works: \d+(\.\d)? GFLOP\/s .*\(auto takes this\)$/m);
    expect(stdout).toMatch(/^cpu +works: /m);
    expect(stdout).toMatch(/^tensorflow +does not work: @tensorflow\/tfjs-node is not installed$/m);
    expect(stdout).toMatch(/^cache +\/hub\/hub/m);
    expect(stdout).toMatch(/^faster +the native engine/m);
  });

  test('--json prints the same as one object', async () => {
    const { code, stdout } = await runCli(['doctor', '--json'], { env: { USE_MEMORY_EFFICIENT_ATTENTION: '1' } });
    expect(code).toBe(0);
    const found = JSON.parse(stdout);
    expect(found.backends.find(({ name }: { name: string }) => name === 'wasm')).toMatchObject({ available: true });
    expect(found.attention.setting).toBe('memory-efficient');
    expect(['onednn', 'wasm']).toContain(found.automatic);
  });

  test('--version and --help', async () => {
    expect((await runCli(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    const { code, stdout } = await runCli(['--help']);
    expect(code).toBe(0);
    for (const option of ['--model', '--scheduler-config', '--attention', '--json', 'doctor']) {
      expect(stdout).toContain(option);
    }
  });
});
