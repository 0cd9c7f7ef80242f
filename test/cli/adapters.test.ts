import { copyFileSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { embeddingOption, loraOption } from '../../src/cli/adapters.js';
import { UNet2DConditionModel } from '../../src/models/index.js';
import { writeDescribed } from '../adapters/lora_file.js';
import { pixelsOf, runCli, scratch } from './support.js';

const UNET = 'weights/tiny-shapes/unet';
const VAE = resolve('weights/tiny-shapes/vae');
const COMMON = ['--backend', 'wasm', '--seed', '1'];

let dir: string;
let remove: () => void;
let flags: string[];
beforeAll(async () => {
  ({ dir, remove } = scratch());
  const unet = UNet2DConditionModel.fromConfig(JSON.parse(readFileSync(join(UNET, 'config.json'), 'utf8')));
  const layers = unet.parameters.filter(({ path }) => /attn2\.to_[kv]\.weight$/.test(path));
  const tensors = layers.flatMap(({ path, shape }) => {
    const name = `unet.${path.replace(/\.weight$/, '')}`;
    return [
      [`${name}.lora_A.weight`, [2, shape[1]!]],
      [`${name}.lora_B.weight`, [shape[0]!, 2]],
    ] as [string, number[]][];
  });
  await writeDescribed(join(dir, 'style.safetensors'), { tensors: Object.fromEntries(tensors), values: {} });
  const size = layers[0]!.shape[1]!;
  await writeDescribed(join(dir, 'word.safetensors'), { tensors: { emb_params: [2, size] }, values: {} });
  copyFileSync(join(VAE, 'diffusion_pytorch_model.safetensors'), join(dir, 'vae.safetensors'));
  flags = ['--lora', join(dir, 'style.safetensors:0.7'), '--embedding', `ringed=${join(dir, 'word.safetensors')}`];
  flags.push('--vae', join(dir, 'vae.safetensors'));
});
afterAll(() => remove());

async function draw(name: string, args: string[]): Promise<Buffer> {
  const out = join(dir, name);
  const { code, stderr } = await runCli([...args, '--out', out]);
  expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
  return pixelsOf(out);
}

test('LoRA, textual inversion and VAE change the picture, and draw it again with the same files alone', async () => {
  const prompt = 'a ringed circle <lora:style:0.5>';
  const drawing = [prompt, '--steps', '2', '--prompt-syntax', 'a1111', ...COMMON];
  const first = await draw('a.png', [...drawing, ...flags]);
  const plain = await draw('plain.png', ['a ringed circle', '--steps', '2', '--prompt-syntax', 'a1111', ...COMMON]);
  expect(first.equals(plain)).toBe(false);
  const [, lora, , embedding, , vae] = flags as [string, string, string, string, string, string];
  const files = ['--lora', lora, '--embedding', embedding.replace('ringed=', ''), '--vae', vae];
  const from = ['--from', join(dir, 'a.png')];
  expect((await draw('b.png', [...from, ...files])).equals(first)).toBe(true);
  const without = await runCli([...from, ...files.slice(2), '--out', join(dir, 'c.png')]);
  expect(without).toMatchObject({ code: 1, stdout: '' });
  expect(without.stderr).toMatch(/drawn with the LoRA files 'style.safetensors' \(SHA-256 [0-9a-f]{64}\); got none/);
  const other = ['--lora', join(dir, 'word.safetensors'), ...files.slice(2)];
  expect((await runCli([...from, ...other, '--out', join(dir, 'c.png')])).stderr).toMatch(/got '.*word.safetensors'/);
  const noVae = await runCli([...from, ...files.slice(0, 4), '--out', join(dir, 'c.png')]);
  expect(noVae.stderr).toMatch(/drawn with the VAE 'vae.safetensors' \(SHA-256 [0-9a-f]{64}\); got none/);
});

test('a file that is no LoRA and a VAE that is none end the command with one sentence', async () => {
  const wrong = await runCli(['a', '--steps', '1', ...COMMON, '--lora', join(dir, 'vae.safetensors')]);
  expect(wrong).toMatchObject({ code: 1, stdout: '' });
  expect(wrong.stderr).toMatch(/is no LoRA: it holds \d+ tensors/);
  const none = await runCli(['a', '--steps', '1', ...COMMON, '--vae', join(dir, 'none')]);
  expect(none.stderr).toMatch(/\[--vae\] expects a directory with config.json or a .safetensors file/);
});

test('the flags read a file and its weight, a word and its file', () => {
  expect(loraOption('a.safetensors', undefined)).toEqual([{ path: 'a.safetensors', weight: 1 }]);
  expect(loraOption('a.safetensors:-0.5', undefined)).toEqual([{ path: 'a.safetensors', weight: -0.5 }]);
  expect(loraOption('C:\\b.safetensors', [{ path: 'a', weight: 1 }])).toEqual([
    { path: 'a', weight: 1 },
    { path: 'C:\\b.safetensors', weight: 1 },
  ]);
  expect(loraOption('https://hf.co/a/b/blob/main/c.safetensors:.8', undefined)).toEqual([
    { path: 'https://hf.co/a/b/blob/main/c.safetensors', weight: 0.8 },
  ]);
  expect(embeddingOption('cat=a/b.safetensors', undefined)).toEqual([{ path: 'a/b.safetensors', token: 'cat' }]);
  expect(embeddingOption('a/b=c.safetensors', undefined)).toEqual([{ path: 'a/b=c.safetensors' }]);
});
