/**
 * Puts the backend `cuda` into npm/cuda/, ready to publish: the addon, the kernels as machine code for every generation of cards, as
 * PTX for later ones, and as sources. Needs g++, cmake and NVRTC (pip install nvidia-cuda-nvrtc), no GPU; --targets=sm_80,... packs
 * fewer.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PACKED_TARGETS, packKernels } from './cuda_kernels.mjs';

const MOST_BYTES = 60e6;

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const target = join(root, 'npm', 'cuda');
const kernels = join(target, 'kernels');
const given = process.argv.find((argument) => argument.startsWith('--targets='))?.slice('--targets='.length);

function sizeOf(folder) {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath ?? entry.path, entry.name)).size, 0);
}

for (const name of readdirSync(target)) if (name !== 'package.json') rmSync(join(target, name), { recursive: true });
const packed = await packKernels(given?.split(',') ?? PACKED_TARGETS, kernels);
if (packed.skipped) throw new Error(packed.skipped);
cpSync(join(root, 'native', 'cuda', 'kernels'), kernels, { recursive: true });
cpSync(join(root, 'build', 'native', 'cuda.node'), join(target, 'cuda.node'));
execFileSync('strip', ['--strip-unneeded', join(target, 'cuda.node')]);

const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const manifest = join(target, 'package.json');
writeFileSync(manifest, `${JSON.stringify({ ...JSON.parse(readFileSync(manifest, 'utf8')), version }, null, 2)}\n`);

// It loads where there is no driver, and says what is missing.
const check = 'const m = { exports: {} }; process.dlopen(m, process.argv[1]); console.log(m.exports.describe());';
execFileSync(process.execPath, ['-e', check, join(target, 'cuda.node')], { stdio: 'inherit' });
const bytes = sizeOf(target);
if (bytes > MOST_BYTES)
  throw new Error(`npm/cuda holds ${(bytes / 1e6).toFixed(1)} MB, the most is ${MOST_BYTES / 1e6}`);
console.log(`filled ${target}: ${packed.kernels.length} kernels, ${(bytes / 1e6).toFixed(1)} MB`);
