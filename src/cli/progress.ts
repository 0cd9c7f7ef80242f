import { type Options, SingleBar } from 'cli-progress';
import type { DenoisingProgress, LoadProgress, Timings } from '../pipelines/index.js';

type LoadingProgress = LoadProgress | { stage: 'download'; file: string; overallLoaded: number; overallTotal: number };

const megabytes = (bytes: number) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);

/** 1.23 s, 45 s, 2 min 5 s. */
export function formatSeconds(seconds: number): string {
  if (seconds >= 60) {
    const whole = Math.round(seconds);
    return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  }
  return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

/** What a user sees while waiting, by default on stderr: bars on a terminal, a few lines elsewhere, nothing when quiet. */
export class ProgressDisplay {
  private bar: SingleBar | undefined;
  private stage = '';
  private closed = false;
  /** Bytes of all files to download, as far as known. */
  private downloaded = 0;
  private readonly isTerminal: boolean;

  constructor(
    private readonly quiet: boolean,
    private readonly stream: NodeJS.WritableStream & { isTTY?: boolean } = process.stderr,
  ) {
    this.isTerminal = stream.isTTY === true;
  }

  /** A line that stays. */
  note(line: string): void {
    if (!this.quiet) {
      this.clear();
      this.stream.write(`${line}\n`);
    }
  }

  loading(progress: LoadingProgress): void {
    if (progress.stage === 'download') {
      const { file, overallLoaded, overallTotal } = progress;
      if (this.downloaded === 0 && !this.isTerminal) {
        this.note('downloading');
      }
      this.downloaded = overallTotal;
      const label = `${megabytes(overallLoaded)} of ${megabytes(overallTotal)} MB  ${file}`;
      this.show('download', 'downloading', overallLoaded, overallTotal, label);
      return;
    }
    if (this.stage === 'download') {
      this.note(`downloaded ${megabytes(this.downloaded)} MB`);
    }
    this.show('load', 'loading', progress.loaded, progress.total, progress.component);
  }

  denoising({ step, total, seconds }: DenoisingProgress): void {
    const left = step < total ? `, ${formatSeconds(seconds * (total - step))} left` : '';
    this.show('denoise', 'drawing', step, total, `${step}/${total}  ${formatSeconds(seconds)} per step${left}`);
  }

  /** Before the first step, which may take long. */
  startDenoising(steps: number): void {
    this.show('denoise', 'drawing', 0, steps, `0/${steps}`);
  }

  denoised({ steps, denoise, total }: Timings): void {
    const perStep = steps.length > 0 ? `, ${formatSeconds(denoise / steps.length)} each` : '';
    this.note(`drew ${steps.length} steps${perStep}; ${formatSeconds(total)} in all`);
  }

  /** Takes the bar away and brings the cursor back. */
  clear(): void {
    this.bar?.stop();
    this.bar = undefined;
    this.stage = '';
  }

  /** Clears the line for good; a step that is still on its way shows nothing any more. */
  close(): void {
    this.clear();
    this.closed = true;
  }

  private show(stage: string, title: string, value: number, total: number, label: string): void {
    if (this.quiet || this.closed || !this.isTerminal) {
      this.stage = stage;
      return;
    }
    if (this.stage !== stage || !this.bar) {
      this.clear();
      this.stage = stage;
      this.bar = new SingleBar({ ...barOptions(title), stream: this.stream });
      this.bar.start(total, value, { label });
      return;
    }
    this.bar.setTotal(total);
    this.bar.update(value, { label });
  }
}

function barOptions(title: string): Options {
  return {
    format: `${title.padEnd(11)} [{bar}] {label}`,
    barsize: 24,
    barCompleteChar: '=',
    barIncompleteChar: ' ',
    hideCursor: true,
    clearOnComplete: true,
    // signals are handled in one place, interruption.ts
    gracefulExit: false,
    linewrap: null,
  };
}
