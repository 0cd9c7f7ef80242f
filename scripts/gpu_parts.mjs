/**
 * The parts of gpu_run.mjs that measure: `node scripts/gpu_parts.mjs describe|correctness|picture|speed|memory`. What they measured goes
 * as JSON to the file that TFJS_DIFFUSERS_GPU_OUTPUT names; they exit with 1 when a result is wrong.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as tf from '@tensorflow/tfjs-core';
import {
  conv2d,
  describeBackends,
  groupNorm,
  layerNorm,
  linear,
  memoryEfficientAttention,
  pickBackend,
  StableDiffusionPipeline,
} from '../dist/index.js';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
/** Of one rounding to the type; sums are float32. */
const BOUND = { float32: 2e-6, bfloat16: 6e-3, float16: 8e-4 };
const small = process.env.TFJS_DIFFUSERS_GPU_SMALL === '1';

function report(measured) {
  const path = process.env.TFJS_DIFFUSERS_GPU_OUTPUT;
  if (path) writeFileSync(path, JSON.stringify(measured));
  console.log(measured);
}

async function start() {
  await pickBackend('cuda');
  return tf.backend();
}

let seed = 0;
const normal = (shape, scale = 1) => tf.mul(tf.randomNormal(shape, 0, 1, 'float32', ++seed), scale);

function relativeL2(actual, expected) {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i] - expected[i]) ** 2;
    norm += expected[i] ** 2;
  }
  return Math.sqrt(difference / norm);
}

/** The fused ops of a Stable Diffusion UNet at its shapes, or at small ones. */
function cases() {
  const [pixels, channels] = small ? [8, 32] : [64, 320];
  const tokens = pixels * pixels;
  const heads = small ? 2 : 8;
  const attention = (keys, size) => ({
    inputs: [
      [2, heads, tokens, size],
      [2, heads, keys, size],
      [2, heads, keys, size],
    ],
    run: ([q, k, v], impl) => memoryEfficientAttention(q, k, v, { impl }),
  });
  return {
    linear: {
      inputs: [
        [2, tokens, channels],
        [channels, channels],
      ],
      run: ([x, w], impl) => linear(x, w, { impl }),
    },
    geglu: {
      inputs: [
        [2, tokens, channels],
        [channels, 8 * channels],
      ],
      run: ([x, w], impl) => linear(x, w, { activation: 'geglu', impl }),
    },
    convolution: {
      inputs: [
        [2, pixels, pixels, channels],
        [3, 3, channels, channels],
      ],
      run: ([x, w], impl) => conv2d(x, w, { padding: 1, impl }),
    },
    downsample: {
      inputs: [
        [2, pixels, pixels, channels],
        [3, 3, channels, channels],
      ],
      run: ([x, w], impl) => conv2d(x, w, { padding: 1, stride: 2, impl }),
    },
    upsample: {
      inputs: [
        [2, pixels / 2, pixels / 2, channels],
        [3, 3, channels, channels],
      ],
      run: ([x, w], impl) => conv2d(x, w, { padding: 1, upsample: 2, impl }),
    },
    groupNorm: {
      inputs: [[2, pixels, pixels, channels], [channels], [channels]],
      run: ([x, g, b], impl) => groupNorm(x, g, b, { groups: 32, activation: 'silu', impl }),
    },
    layerNorm: {
      inputs: [[2, tokens, channels], [channels], [channels]],
      run: ([x, g, b], impl) => layerNorm(x, g, b, { impl }),
    },
    'attention 40': attention(tokens, 40),
    'attention 40, text': attention(77, 40),
    'attention 64': attention(tokens, 64),
    'attention 80': attention(tokens / 4, 80),
    'attention 160': attention(tokens / 16, 160),
  };
}

/** Every fused op in every type against its composition in float32 on the same rounded numbers. */
async function correctness() {
  const backend = await start();
  const measured = {};
  for (const [name, { inputs, run }] of Object.entries(cases())) {
    for (const type of Object.keys(BOUND)) {
      const error = tf.tidy(() => {
        const rounded = inputs.map((shape) =>
          backend.toPhysical(normal(shape, shape.length === 2 || shape[0] === 3 ? 0.05 : 1), type),
        );
        const exact = rounded.map((x) => backend.toPhysical(x, 'float32'));
        return relativeL2(run(rounded, 'native').dataSync(), run(exact, 'composed').dataSync());
      });
      measured[`${name}, ${type}`] = { error, bound: BOUND[type], right: error <= BOUND[type] };
    }
  }
  report(measured);
  return Object.values(measured).every(({ right }) => right);
}

/** A tensor of a safetensors file as bytes. */
function safetensor(path, name) {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const [begin, end] = JSON.parse(file.subarray(8, 8 + length).toString())[name].data_offsets;
  return file.subarray(8 + length + begin, 8 + length + end);
}

/** README's picture against the one that Python diffusers drew, in each type. */
async function picture() {
  const pixels = safetensor(join(root, 'test/fixtures/tiny-shapes/default.safetensors'), 'image_u8');
  const measured = {};
  for (const dtype of small ? ['float32'] : Object.keys(BOUND)) {
    const pipe = await StableDiffusionPipeline.fromPretrained(join(root, 'weights/tiny-shapes'), {
      backend: 'cuda',
      dtype,
    });
    const started = performance.now();
    const { images } = await pipe('a large yellow star on a purple background', { seed: 0, numInferenceSteps: 20 });
    const seconds = (performance.now() - started) / 1000;
    pipe.dispose();
    const off = images[0].data.filter((value, i) => Math.abs(value - pixels[i]) > 1).length / pixels.length;
    measured[dtype] = { seconds, off, right: off <= (dtype === 'float32' ? 0.001 : 0.1) };
  }
  report(measured);
  return Object.values(measured).every(({ right }) => right);
}

/** Milliseconds of one call: the median of five rounds, each as long as 20 calls, with the last one waited for. */
async function timeOf(run) {
  const round = async (calls) => {
    let last;
    for (let i = 0; i < calls; i++) {
      last?.dispose();
      last = run();
    }
    const one = tf.tidy(() => tf.slice(tf.reshape(last, [-1]), 0, 1));
    await one.data();
    tf.dispose([one, last]);
  };
  await round(3);
  const times = [];
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    await round(20);
    times.push((performance.now() - started) / 20);
  }
  return times.sort((a, b) => a - b)[2];
}

/** PyTorch's fastest SDPA on the same shapes, where a Python with torch is there. */
function pytorchAttention() {
  const program = `
import json, torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa
out = {}
for name, (b, h, n, k, d) in {"attention 40": (2, 8, 4096, 4096, 40), "attention 40, text": (2, 8, 4096, 77, 40), "attention 64": (2, 8, 4096, 4096, 64), "attention 80": (2, 8, 1024, 1024, 80), "attention 160": (2, 8, 256, 256, 160)}.items():
    q, kk, v = (torch.randn(b, h, m, d, device="cuda", dtype=torch.float16) for m in (n, k, k))
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        try:
            with sdpa_kernel(backend):
                for _ in range(3): sdpa(q, kk, v)
                a, z = torch.cuda.Event(True), torch.cuda.Event(True)
                a.record()
                for _ in range(50): sdpa(q, kk, v)
                z.record(); torch.cuda.synchronize()
                out.setdefault(name, {})[backend.name] = a.elapsed_time(z) / 50
        except RuntimeError: pass
print(json.dumps({"torch": torch.__version__, "milliseconds": out}))`;
  try {
    return JSON.parse(
      execFileSync('python3', ['-c', program], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
    );
  } catch {
    return 'no Python with torch here';
  }
}

async function speed() {
  const backend = await start();
  const milliseconds = {};
  for (const [name, { inputs, run }] of Object.entries(cases())) {
    const given = inputs.map((shape) => tf.tidy(() => backend.toPhysical(normal(shape, 0.1), 'float16')));
    milliseconds[name] = await timeOf(() => run(given, 'native'));
    tf.dispose(given);
  }
  report({ type: 'float16', milliseconds, pytorch: pytorchAttention() });
  return true;
}

/** The limit holds, what is over it is a typed error, and everything goes back. */
async function memory() {
  const backend = await start();
  const before = backend.memoryInfo();
  backend.setMemoryLimit(before.bytesInUse + (64 << 20));
  let refused = false;
  try {
    tf.tidy(() => tf.add(tf.zeros([16 << 20]), tf.ones([16 << 20])).dataSync());
  } catch (error) {
    refused = error.name === 'OutOfMemoryError';
  }
  backend.setMemoryLimit(0);
  const sum = tf.tidy(() => tf.sum(tf.ones([1 << 20])).dataSync()[0]);
  const after = backend.memoryInfo();
  report({ before, after, refused, sum });
  return refused && sum === 1 << 20 && after.bytesInUse === before.bytesInUse;
}

async function describe() {
  const found = (await describeBackends()).find(({ name }) => name === 'cuda');
  report(found);
  return found?.available === true;
}

const parts = { describe, correctness, picture, speed, memory };
const part = parts[process.argv[2]];
if (!part) {
  console.error(`usage: gpu_parts.mjs ${Object.keys(parts).join('|')}`);
  process.exit(2);
}
process.exit((await part()) ? 0 : 1);
