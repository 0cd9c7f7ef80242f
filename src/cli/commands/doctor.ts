import { freemem, totalmem } from 'node:os';
import * as tf from '@tensorflow/tfjs-core';
import { hubCacheDir } from '#platform';
import { describeAutoAttention, resolveAttention } from '../../attention/index.js';
import {
  type BackendDescription,
  describeBackends,
  pickBackend,
  supportsPhysicalTypes,
  traits,
} from '../../backends/index.js';
import { hubEndpoint, isOffline } from '../../loaders/hub/request.js';
import { TINY_SHAPES } from '../../pipelines/index.js';
import { installedVersion, PACKAGE_ROOT, versions } from '../package_info.js';
import { describeProcessor, type ProcessorDescription } from '../processor.js';

interface BackendCheck extends BackendDescription {
  /** Billions of floating point operations a second in a matrix product of 512 x 512 numbers. */
  gflops?: number;
}

/** What `doctor` finds out. */
interface Diagnosis {
  versions: Record<string, string>;
  /** Versions of the optional peers, 'not installed' without. */
  peers: Record<string, string>;
  platform: string;
  processor: ProcessorDescription;
  memory: { totalBytes: number; freeBytes: number };
  backends: BackendCheck[];
  /** The backend that 'auto' takes; null when none works. */
  automatic: string | null;
  attention: { setting: string; on: string | null };
  cacheDir: string;
  endpoint: string;
  offline: boolean;
  model: string;
  advice: string[];
}

const PEERS = ['@tensorflow/tfjs-node', '@tensorflow/tfjs-node-gpu', '@xenova/transformers'];
const SIZE = 512;

/** Computes on the active backend, checks the numbers and gives the speed in GFLOP/s. */
async function measure(): Promise<number> {
  const product = tf.tidy(() => tf.matMul(tf.fill([SIZE, SIZE], 0.5), tf.fill([SIZE, SIZE], 0.25)));
  const numbers = await product.data();
  product.dispose();
  if (!numbers.every((x) => Math.abs(x - SIZE / 8) < 1e-3)) {
    throw new Error('it computes wrong numbers');
  }
  const [a, b] = [tf.randomNormal<tf.Rank.R2>([SIZE, SIZE]), tf.randomNormal<tf.Rank.R2>([SIZE, SIZE])];
  let best = Number.POSITIVE_INFINITY;
  const begin = performance.now();
  do {
    const start = performance.now();
    const c = tf.matMul(a, b);
    await c.data();
    c.dispose();
    best = Math.min(best, performance.now() - start);
  } while (performance.now() - begin < 200);
  tf.dispose([a, b]);
  return (2 * SIZE ** 3) / (best * 1e6);
}

async function check(description: BackendDescription): Promise<BackendCheck> {
  const firstLine = description.detail.split('\n')[0]!;
  if (!description.available) {
    const missing = /^(\S+) cannot be loaded: Cannot find (?:package|module) '\1'/.exec(firstLine);
    return { ...description, detail: missing ? `${missing[1]} is not installed` : firstLine };
  }
  try {
    await pickBackend(description.name);
    return { ...description, detail: firstLine, gflops: await measure() };
  } catch (error) {
    return { ...description, available: false, detail: (error as Error).message };
  }
}

async function diagnose(): Promise<Diagnosis> {
  tf.env().set('PROD', true);
  const backends: BackendCheck[] = [];
  for (const description of await describeBackends()) {
    backends.push(await check(description));
  }
  const automatic = await pickBackend('auto').catch(() => null);
  const processor = describeProcessor();
  const setting = resolveAttention().name;
  return {
    versions: versions(),
    peers: Object.fromEntries(PEERS.map((name) => [name, installedVersion(name) ?? 'not installed'])),
    platform: `${process.platform}-${process.arch}`,
    processor,
    memory: { totalBytes: totalmem(), freeBytes: freemem() },
    backends,
    automatic,
    attention: { setting, on: setting === 'auto' && automatic ? describeAutoAttention() : null },
    cacheDir: hubCacheDir(),
    endpoint: hubEndpoint(),
    offline: isOffline(),
    model: TINY_SHAPES,
    advice: advise(backends, processor),
  };
}

function advise(backends: BackendCheck[], { features }: ProcessorDescription): string[] {
  const advice = backends.flatMap((backend) => backend.advice ?? []);
  const works = backends.some(({ available }) => available);
  const storesHalves = works && supportsPhysicalTypes(tf.backend()) && !traits().isGpu;
  if (storesHalves && features?.some((feature) => feature.endsWith('BF16'))) {
    advice.push(
      '--dtype bfloat16: half the memory of float32, and matrix products about twice as fast on this processor',
    );
  }
  if (!works) {
    advice.push(`no backend works; install the package again (it lies in ${PACKAGE_ROOT})`);
  }
  return advice;
}

function toText(found: Diagnosis): string {
  const gigabytes = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const { processor, memory, backends, automatic, attention } = found;
  const list = (entries: Record<string, string>) =>
    Object.entries(entries).map(([name, version]) => `${name} ${version}`);
  const rows: [string, string][] = [
    ['versions', list(found.versions).join(', ')],
    ['peers', list(found.peers).join(', ')],
    ['platform', found.platform],
    [
      'processor',
      `${processor.model}, ${processor.threads} threads${processor.features ? `, ${processor.features.join(', ')}` : ''}`,
    ],
    ['memory', `${gigabytes(memory.totalBytes)}, ${gigabytes(memory.freeBytes)} free`],
    ...backends.map(({ name, available, detail, gflops }): [string, string] => {
      const speed =
        gflops === undefined ? '' : `${gflops.toFixed(gflops < 10 ? 1 : 0)} GFLOP/s in a 512 x 512 product; `;
      return [
        name,
        `${available ? 'works: ' : 'does not work: '}${speed}${detail}${name === automatic ? ' (auto takes this)' : ''}`,
      ];
    }),
    ['attention', `${attention.setting}${attention.on ? `: ${attention.on}` : ''}`],
    ['cache', `${found.cacheDir}${found.offline ? ' (offline)' : `, filled from ${found.endpoint}`}`],
    ['model', found.model],
    ...found.advice.map((line): [string, string] => ['faster', line]),
  ];
  return rows.map(([name, text]) => `${name.padEnd(11)} ${text}`).join('\n');
}

/** Says what works on this machine; false when no backend does. */
export async function doctor({ json }: { json?: boolean }): Promise<boolean> {
  const found = await diagnose();
  process.stdout.write(`${json ? JSON.stringify(found) : toText(found)}\n`);
  return found.automatic !== null;
}
