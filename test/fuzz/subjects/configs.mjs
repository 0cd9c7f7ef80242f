// Configurations of models and pipelines with one entry damaged: loading must fail with a reason or work.
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { StableDiffusionPipeline } from '../../../dist/index.js';

const FILES = [
  'model_index.json',
  'unet/config.json',
  'vae/config.json',
  'text_encoder/config.json',
  'scheduler/scheduler_config.json',
  'tokenizer/tokenizer_config.json',
  'tokenizer/special_tokens_map.json',
  'tokenizer/vocab.json',
];

export function setUp() {
  const dir = mkdtempSync(join(tmpdir(), 'tfjs-diffusers-fuzz-'));
  cpSync('weights/tiny-shapes', dir, { recursive: true });
  return { dir, originals: Object.fromEntries(FILES.map((file) => [file, readFileSync(join(dir, file))])) };
}

export async function trial(random, { dir, originals }) {
  const file = random.of(FILES);
  const damaged = random.chance(0.8)
    ? JSON.stringify(random.damageJson(JSON.parse(originals[file])))
    : random.damage(originals[file]);
  writeFileSync(join(dir, file), damaged);
  try {
    (await StableDiffusionPipeline.fromPretrained(dir, { backend: 'cpu' })).dispose();
  } finally {
    writeFileSync(join(dir, file), originals[file]);
  }
}
