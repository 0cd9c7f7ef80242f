// What every benchmark shares: repeated timing, the machine and commit that a number belongs to, and saving results.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { dirname } from 'node:path';

/** Median of numbers. */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Median, extremes and count of a series of seconds. */
export function summary(seconds) {
  return { median: median(seconds), min: Math.min(...seconds), max: Math.max(...seconds), runs: seconds.length };
}

/** '1.234 s (1.200 - 1.301, 5 runs)' */
export function formatSummary({ median: middle, min, max, runs }) {
  return `${middle.toPrecision(4)} s (${min.toPrecision(4)} - ${max.toPrecision(4)}, ${runs} runs)`;
}

/** Seconds of each of `runs` calls of an asynchronous function, after `warmups` that are not counted. */
export async function time(f, { runs = 5, warmups = 1 } = {}) {
  const seconds = [];
  for (let i = 0; i < warmups + runs; i++) {
    const begin = performance.now();
    await f();
    if (i >= warmups) {
      seconds.push((performance.now() - begin) / 1000);
    }
  }
  return seconds;
}

/** Processor, memory, versions and commit. */
export function environment() {
  const commit = () => {
    try {
      const git = (...args) => execFileSync('git', args, { encoding: 'utf8' }).trim();
      const dirty = git('status', '--porcelain', '--untracked-files=no') ? ' with changes' : '';
      return git('rev-parse', '--short=10', 'HEAD') + dirty;
    } catch {
      return 'unknown';
    }
  };
  return {
    date: new Date().toISOString().slice(0, 10),
    commit: commit(),
    processor: `${cpus().length} x ${cpus()[0]?.model.trim() ?? 'unknown'}`,
    memoryGB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
  };
}

/** Resident memory of this process now and at its highest, in bytes (Linux; the highest elsewhere). */
export function residentMemory() {
  try {
    const status = readFileSync('/proc/self/status', 'utf8');
    const kilobytes = (name) => Number(status.match(new RegExp(`${name}:\\s+(\\d+)`))[1]) * 1024;
    return { current: kilobytes('VmRSS'), peak: kilobytes('VmHWM') };
  } catch {
    return { current: process.memoryUsage().rss, peak: process.resourceUsage().maxRSS * 1024 };
  }
}

/** Writes a result as JSON, making its folder. */
export function saveJson(path, value) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`);
}
