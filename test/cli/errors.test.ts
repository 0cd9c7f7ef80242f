import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { runCli, scratch } from './support.js';

let dir: string;
let remove: () => void;
beforeEach(() => {
  ({ dir, remove } = scratch());
});
afterEach(() => remove());

/** Runs in an empty directory; the command must fail with one message on stderr and leave nothing behind. */
async function fails(args: string[], env: Record<string, string> = {}) {
  const before = readdirSync(dir);
  const { code, stdout, stderr } = await runCli(['--quiet', ...args], { cwd: dir, env });
  expect(stdout).toBe('');
  expect(readdirSync(dir)).toEqual(before);
  return { code, message: stderr };
}

const oneLine = (text: RegExp) => new RegExp(`^tfjs-diffusers: [^\\n]*${text.source}[^\\n]*\\n$`);

describe('wrong usage ends with exit code 2 and one line', () => {
  test.each<[string, string[], RegExp]>([
    ['an unknown option', ['a star', '--zzzz'], /unknown option '--zzzz'/],
    ['two prompts', ['a', 'star'], /too many arguments/],
    ['a missing value', ['a star', '--steps'], /argument missing/],
    ['0 steps', ['a star', '--steps', '0'], /'0' is invalid.*at least 1/],
    ['steps that are no number', ['a star', '--steps', 'ten'], /'ten' is invalid/],
    ['half a step', ['a star', '--steps', '2.5'], /'2.5' is invalid/],
    ['no batch', ['a star', '--batch', '0'], /'0' is invalid/],
    ['guidance that is no number', ['a star', '--guidance', 'NaN'], /'NaN' is invalid/],
    ['empty guidance', ['a star', '--guidance', ''], /'' is invalid/],
    ['an eta above 1', ['a star', '--eta', '1.5'], /from 0 to 1/],
    ['a seed that is no whole number', ['a star', '--seed', '1e3'], /'1e3' is invalid/],
    ['a seed beyond 64 bits', ['a star', '--seed', '18446744073709551616'], /2\^64/],
    ['a height of 63', ['a star', '--height', '63'], /height expects a positive multiple of 4.*got 63/],
    ['a width of 0', ['a star', '--width', '0'], /'0' is invalid/],
    ['an unknown scheduler', ['a star', '--scheduler', 'foo'], /"foo" is unknown.*EulerDiscreteScheduler/],
    ['scheduler configuration that is no JSON', ['a star', '--scheduler-config', '{'], /Expected JSON/],
    ['scheduler configuration that is no object', ['a star', '--scheduler-config', '[]'], /JSON object/],
    ['a bad value in it', ['a star', '--scheduler-config', '{"beta_schedule":"x"}'], /beta_schedule/],
    ['an unknown attention', ['a star', '--attention', 'foo'], /'foo' is invalid.*memory-efficient/],
    ['an unknown backend', ['a star', '--backend', 'foo'], /'foo' is invalid.*wasm/],
    ['an unknown dtype', ['a star', '--dtype', 'int8'], /'int8' is invalid.*bfloat16/],
    ['an unknown picture format', ['a star', '--out', 'star.bmp'], /extension .*got '.bmp'/],
    ['a name without an extension', ['a star', '--out', 'star'], /extension/],
    ['a directory for several pictures', ['a star', '--out', 'stars/', '--batch', '2'], /from 'stars\/'/],
    ['a picture for txt2img', ['a star', '--image', 'star.png'], /--image/],
  ])('%s', async (_, args, message) => {
    expect(await fails(args)).toEqual({ code: 2, message: expect.stringMatching(oneLine(message)) });
  });

  test('img2img without a picture', async () => {
    const { code, stderr } = await runCli(['img2img', 'a star'], { cwd: dir });
    expect(code).toBe(2);
    expect(stderr).toMatch(/required option '--image <path>' not specified/);
  });

  test('no prompt', async () => {
    expect(await fails([])).toEqual({ code: 2, message: expect.stringMatching(oneLine(/missing required argument/)) });
  });
});

describe('failures end with exit code 1 and one message', () => {
  test.each<[string, string[], RegExp]>([
    ['a directory that does not exist', ['--out', join('no', 'where', 'star.png')], /'no\/where' does not exist/],
    ['a directory in the place of the file', ['--out', 'taken.png'], /it is a directory/],
    ['a model that does not exist', ['--model', './no-model'], /there is no directory/],
    ['a directory without a model', ['--model', '.'], /model_index.json/],
    ['a repository that is not in the cache, offline', ['--model', 'acme/none'], /cache has no 'acme\/none'/],
    ['a backend that is not installed', ['--backend', 'tensorflow'], /tfjs-node/],
  ])('%s', async (_, args, message) => {
    mkdirSync(join(dir, 'taken.png'));
    const env = { HF_HUB_OFFLINE: '1', HF_HOME: join(dir, 'taken.png') };
    const ended = await fails(['a star', '--out', 'star.png', ...args], env);
    expect(ended).toEqual({ code: 1, message: expect.stringMatching(oneLine(message)) });
  });

  test('no network', async () => {
    const env = { HF_ENDPOINT: 'http://127.0.0.1:9', HF_HOME: join(dir, 'cache'), HF_HUB_OFFLINE: '' };
    const ended = await fails(['a star', '--out', 'star.png', '--model', 'acme/none'], env);
    expect(ended).toEqual({ code: 1, message: expect.stringMatching(oneLine(/127.0.0.1:9/)) });
  });

  const UNET = join('model', 'unet', 'diffusion_pytorch_model.safetensors');
  const withHeader = (header: Buffer | string, length = BigInt(header.length)) => {
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(length);
    return Buffer.concat([size, Buffer.from(header)]);
  };
  const tensor = (entry: object) => withHeader(JSON.stringify({ 'conv_in.weight': entry }));
  test.each<[string, () => void, RegExp]>([
    ['truncated weights', () => truncateSync(join(dir, UNET), 100_000), /safetensors/],
    ['empty weights', () => truncateSync(join(dir, UNET), 0), /safetensors/],
    ['a header of 2^60 bytes', () => writeFileSync(join(dir, UNET), withHeader('{}', 2n ** 60n)), /safetensors/],
    [
      'offsets out of bounds',
      () => writeFileSync(join(dir, UNET), tensor({ dtype: 'F32', shape: [4], data_offsets: [0, 16] })),
      /safetensors/,
    ],
    [
      'a wrong dtype',
      () => writeFileSync(join(dir, UNET), tensor({ dtype: 'X', shape: [0], data_offsets: [0, 0] })),
      /X/,
    ],
    ['missing weights', () => rmSync(join(dir, UNET)), /unet/],
    [
      'a configuration that is no JSON',
      () => writeFileSync(join(dir, 'model', 'unet', 'config.json'), '{'),
      /config.json/,
    ],
    ['an unknown pipeline', () => writeFileSync(join(dir, 'model', 'model_index.json'), '{}'), /model_index.json/],
    ['no tokenizer', () => rmSync(join(dir, 'model', 'tokenizer'), { recursive: true }), /tokenizer/],
  ])('a model with %s', async (_, spoil, message) => {
    cpSync(resolve('weights/tiny-shapes'), join(dir, 'model'), { recursive: true });
    spoil();
    const ended = await fails(['a star', '--out', 'star.png', '--model', 'model', '--backend', 'wasm']);
    expect(ended).toEqual({ code: 1, message: expect.stringMatching(oneLine(message)) });
  });

  test('a model that lacks a tensor is told by the name of the tensor', async () => {
    cpSync(resolve('weights/tiny-shapes'), join(dir, 'model'), { recursive: true });
    const bytes = readFileSync(join(dir, UNET));
    const at = bytes.indexOf('"conv_in.bias"');
    bytes.write('"conv_in.bios"', at);
    writeFileSync(join(dir, UNET), bytes);
    const { code, message } = await fails(['a star', '--out', 'star.png', '--model', 'model', '--backend', 'wasm']);
    expect(code).toBe(1);
    expect(message).toMatch(/^tfjs-diffusers: .*conv_in\.bias/s);
    expect(message).toContain('conv_in.bios');
    expect(message).not.toMatch(/^\s+at /m);
  });

  test('the stack comes with DEBUG only', async () => {
    const args = ['a star', '--model', './no-model'];
    expect((await fails(args)).message).not.toMatch(/^\s+at /m);
    expect((await fails(args, { DEBUG: '1' })).message).toMatch(/^\s+at /m);
  });
});
