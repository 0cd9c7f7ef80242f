import { readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';

export interface ProcessorDescription {
  model: string;
  threads: number;
  /** Instruction sets that matter for speed; undefined where the system does not tell. */
  features?: string[];
}

/** The flags of /proc/cpuinfo, x86 and ARM, that neural networks gain from. */
const FEATURES: Readonly<Record<string, string>> = {
  avx2: 'AVX2',
  fma: 'FMA',
  avx512f: 'AVX-512',
  avx512_bf16: 'AVX-512 BF16',
  amx_bf16: 'AMX BF16',
  asimd: 'NEON',
  bf16: 'BF16',
  sve: 'SVE',
};

export function describeProcessor(): ProcessorDescription {
  const model = cpus()[0]?.model.trim() || process.arch;
  const threads = availableParallelism();
  let text: string;
  try {
    text = readFileSync('/proc/cpuinfo', 'utf8');
  } catch {
    return { model, threads };
  }
  const flags = new Set(/^(?:flags|Features)\s*:(.*)$/m.exec(text)?.[1]?.trim().split(/\s+/));
  return {
    model,
    threads,
    features: Object.keys(FEATURES).flatMap((flag) => (flags.has(flag) ? FEATURES[flag]! : [])),
  };
}
