// Stable Diffusion 1.5 sized work, ours and PyTorch's in turns on the same machine.
//
//   npm run bench -- sd15 [unet] [vae] [attention] [attention-backward] [--dtype float32,bfloat16] [--size 64] [--batch 2]
//                    [--rounds 3] [--python PATH] [--backend onednn] [--threads 2] [--profile] [--compile] [--save FILE]
//
// Without --python (or the variable PYTHON) only our side runs. PYTHON needs torch and diffusers. Its side is the fastest of
// PyTorch's settings for attention; --compile tries torch.compile as well.
import { spawn } from 'node:child_process';
import { cpus } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs-core';
import {
  AutoencoderKL,
  KeyValueCache,
  memoryEfficientAttention,
  pickBackend,
  UNet2DConditionModel,
} from '../dist/index.js';
import { printProfile, profileKernels } from './profile.mjs';
import { environment, formatSummary, residentMemory, saveJson, summary, time } from './support.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    dtype: { type: 'string', default: 'float32,bfloat16' },
    size: { type: 'string', default: '64' },
    batch: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '3' },
    python: { type: 'string', default: process.env.PYTHON },
    backend: { type: 'string', default: 'auto' },
    threads: { type: 'string', default: String(cpus().length) },
    profile: { type: 'boolean', default: false },
    compile: { type: 'boolean', default: false },
    save: { type: 'string' },
  },
});
const works = positionals.length > 0 ? positionals : ['unet', 'vae', 'attention', 'attention-backward'];
const [size, batch, rounds] = [values.size, values.batch, values.rounds].map(Number);

/** PyTorch in a process of its own, asked for one measurement at a time. */
function startTorch(python) {
  const script = fileURLToPath(new URL('torch_sd15.py', import.meta.url));
  const child = spawn(python, [script, values.threads], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async measure(request) {
      child.stdin.write(`${JSON.stringify(request)}\n`);
      const { value } = await lines.next();
      if (!value) throw new Error('PyTorch ended without an answer');
      return JSON.parse(value);
    },
    stop: () => child.stdin.end(),
  };
}

const UNET = { sample_size: 64, cross_attention_dim: 768 };
const VAE = {
  block_out_channels: [128, 256, 512, 512],
  down_block_types: new Array(4).fill('DownEncoderBlock2D'),
  up_block_types: new Array(4).fill('UpDecoderBlock2D'),
  layers_per_block: 2,
};
const ATTENTION_SHAPES = [
  [2, 8, 4096, 40],
  [2, 8, 1024, 80],
];
const pixels = (size / 64) ** 2;
// multiply-adds of one forward pass; only self-attention's scores and values grow with the square of the pixels
const UNET_FLOP = batch * 2e9 * ((401.6 - 61.3) * pixels + 61.3 * pixels * pixels);
const VAE_FLOP = 2 * 1257e9 * pixels;

/** Bytes that one call needs above the weights and inputs; null on backends that cannot tell. */
async function peakAbove(f) {
  const backend = tf.backend();
  if (!backend.memoryInfo) return null;
  await f();
  backend.resetPeak();
  const before = backend.memoryInfo().bytesInUse;
  await f();
  return backend.memoryInfo().peakBytes - before;
}

const mebibytes = (bytes) => (bytes === null ? 'unknown' : `${(bytes / 2 ** 20).toFixed(0)} MiB`);

const native = (x, dtype) => (tf.backend().toPhysical ? tf.backend().toPhysical(x, dtype) : x);

/** What to run, as {f, flop, dispose}. */
const OURS = {
  unet(dtype) {
    const unet = UNet2DConditionModel.fromConfig(UNET, { init: 'random', dtype });
    const sample = tf.randomNormal([batch, size, size, 4]);
    const text = tf.randomNormal([batch, 77, 768]);
    const cache = new KeyValueCache();
    return {
      flop: UNET_FLOP,
      async f() {
        const out = unet.forward(sample, 500, text, { cache });
        await out.data();
        out.dispose();
      },
      dispose() {
        cache.dispose();
        unet.dispose();
        tf.dispose([sample, text]);
      },
    };
  },
  vae(dtype) {
    const vae = AutoencoderKL.fromConfig(VAE, { init: 'random', dtype });
    const latents = tf.randomNormal([1, size, size, 4]);
    return {
      flop: VAE_FLOP,
      async f() {
        const out = vae.decode(latents);
        await out.data();
        out.dispose();
      },
      dispose() {
        vae.dispose();
        latents.dispose();
      },
    };
  },
  attention(dtype, shape) {
    const [q, k, v] = [0, 1, 2].map(() => tf.tidy(() => native(tf.randomNormal(shape), dtype)));
    const [b, heads, n, d] = shape;
    return {
      flop: 4 * b * heads * n * n * d,
      async f() {
        memoryEfficientAttention(q, k, v).dispose();
      },
      dispose: () => tf.dispose([q, k, v]),
    };
  },
  'attention-backward'(dtype, shape) {
    const [q, k, v, dy] = [0, 1, 2, 3].map(() => tf.tidy(() => native(tf.randomNormal(shape), dtype)));
    const [b, heads, n, d] = shape;
    const attrs = { scale: 1 / Math.sqrt(d), heads };
    const [out, lse] = tf.engine().runKernel('MemoryEfficientAttention', { q, k, v }, attrs);
    return {
      flop: 10 * b * heads * n * n * d,
      async f() {
        tf.dispose(tf.engine().runKernel('MemoryEfficientAttentionGrad', { dy, q, k, v, out, lse }, attrs));
      },
      dispose: () => tf.dispose([q, k, v, dy, out, lse]),
    };
  },
};

await pickBackend(values.backend);
const machine = environment();
console.log(`# sd15, backend ${tf.getBackend()}: ${JSON.stringify(machine)}`);
const torch = values.python ? startTorch(values.python) : null;
const results = [];
for (const work of works) {
  for (const dtype of values.dtype.split(',')) {
    if (work === 'attention-backward' && dtype !== 'float32') continue;
    for (const shape of work.startsWith('attention') ? ATTENTION_SHAPES : [null]) {
      const ours = OURS[work](dtype, shape);
      const { compile } = values;
      const request = { work, dtype, size, batch, compile, runs: shape ? 5 : 1, ...(shape ? { shape } : {}) };
      const [mine, theirs] = [[], []];
      let peer;
      let theirPeak;
      const peakBytes = await peakAbove(ours.f);
      // in turns, so that a slow phase of the machine meets both
      for (let round = 0; round < rounds; round++) {
        mine.push(...(await time(ours.f, { runs: request.runs, warmups: 1 })));
        if (torch) {
          peer = await torch.measure(request);
          theirPeak ??= peer.peakBytes;
          theirs.push(...peer.seconds);
        }
      }
      const result = {
        work: shape ? `${work} ${shape.join('x')}` : work,
        dtype,
        ours: { ...summary(mine), gflops: ours.flop / summary(mine).median / 1e9, peakBytes },
        torch: torch
          ? {
              ...summary(theirs),
              gflops: ours.flop / summary(theirs).median / 1e9,
              version: peer.torch,
              setting: peer.setting,
              tried: peer.tried,
              peakBytes: theirPeak,
            }
          : null,
      };
      result.speedup = torch ? result.torch.median / result.ours.median : null;
      if (values.profile) {
        printProfile(await profileKernels(ours.f));
      }
      ours.dispose();
      results.push(result);
      console.log(
        `${result.work} ${dtype}: ours ${formatSummary(result.ours)} ${result.ours.gflops.toFixed(0)} GFLOP/s`,
      );
      if (torch) {
        const tried = Object.entries(result.torch.tried).map(
          ([name, seconds]) => `${name} ${seconds.toPrecision(3)} s`,
        );
        console.log(`  torch ${formatSummary(result.torch)} ${result.torch.gflops.toFixed(0)} GFLOP/s`);
        console.log(`  (${result.torch.setting}${tried.length > 0 ? `; tried ${tried.join(', ')}` : ''})`);
        console.log(`  ${result.speedup.toFixed(2)} x PyTorch's speed`);
        console.log(`  memory above weights: ours ${mebibytes(peakBytes)}, torch ${mebibytes(theirPeak)}`);
      }
    }
  }
}
torch?.stop();
console.log(`peak resident memory ${(residentMemory().peak / 2 ** 30).toFixed(2)} GiB`);
if (values.save) {
  saveJson(values.save, { machine, backend: tf.getBackend(), size, batch, results });
}
