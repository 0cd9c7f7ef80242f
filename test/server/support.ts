import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';

export const MAIN = 'dist/cli/main.js';
export const PROMPT = 'a large yellow star on a purple background';
/** What the command line draws for PROMPT, seed 0 and 20 steps. */
export const STAR = 'test/fixtures/tiny-shapes/default.png';

/** A `serve` that runs. */
export class RunningServer {
  private constructor(
    readonly url: string,
    readonly child: ChildProcess,
    private readonly printed: { text: string },
  ) {}

  static async start(...args: string[]): Promise<RunningServer> {
    const child = spawn(process.execPath, [MAIN, 'serve', '--port', '0', ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, OMP_NUM_THREADS: '1' },
    });
    const printed = { text: '' };
    const url = await new Promise<string>((resolve, reject) => {
      const read = (data: Buffer) => {
        printed.text += String(data);
        const match = /listening on (\S+)/.exec(printed.text);
        if (match) {
          resolve(match[1]!);
        }
      };
      child.stdout!.on('data', read);
      child.stderr!.on('data', read);
      child.on('exit', (code) => reject(new Error(`serve ended with ${code}: ${printed.text}`)));
    });
    return new RunningServer(url, child, printed);
  }

  /** All that it has printed. */
  get log(): string {
    return this.printed.text;
  }

  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(this.url + path, init);
  }

  async get<T = Record<string, never>>(path: string, init: RequestInit = {}): Promise<T> {
    return (await (await this.fetch(path, init)).json()) as T;
  }

  post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
    return this.fetch(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
  }

  /** Adds a job and gives what the server says of it. */
  async add(body: object): Promise<JobAnswer> {
    const response = await this.post('/jobs', body);
    if (response.status !== 202) {
      throw new Error(`${response.status}: ${await response.text()}`);
    }
    return (await response.json()) as JobAnswer;
  }

  job(id: string): Promise<JobAnswer> {
    return this.get<JobAnswer>(`/jobs/${id}`);
  }

  /** Waits until a job is as it should be. */
  until(id: string, ready: (job: JobAnswer) => boolean): Promise<JobAnswer> {
    return eventually(() => this.job(id), ready);
  }

  async ended(id: string): Promise<JobAnswer> {
    return this.until(id, ({ state }) => ['completed', 'failed', 'cancelled'].includes(state));
  }

  /** The engines' processes. */
  engines(): number[] {
    return childrenOf(this.child.pid!);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      this.child.kill(signal);
      await once(this.child, 'exit');
    }
  }
}

export interface JobAnswer {
  id: string;
  state: string;
  position?: number;
  expected_seconds?: number;
  progress?: { picture: number; pictures: number; step: number; steps: number };
  error?: { type: string; message: string };
  pictures?: { seed: number; width: number; height: number; format: string; parameters: string; url: string }[];
}

export function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? [] : text.split(' ').map(Number);
}

/** Asks again until the answer is as it should be. */
export async function eventually<T>(ask: () => Promise<T> | T, ready: (answer: T) => boolean): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (ready(answer)) {
      return answer;
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** 8-bit RGB numbers of a picture. */
export async function pixelsOf(picture: Uint8Array | string): Promise<Buffer> {
  return sharp(typeof picture === 'string' ? readFileSync(picture) : picture)
    .removeAlpha()
    .raw()
    .toBuffer();
}

export const bytesOf = (base64: string): Buffer => Buffer.from(base64, 'base64');

/** What the command line draws for some options. */
export async function drawnByCommandLine(prompt: string, ...args: string[]): Promise<Buffer> {
  const dir = mkdtempSync(join(tmpdir(), 'drawn-'));
  try {
    const out = join(dir, 'picture.png');
    execFileSync(process.execPath, [MAIN, prompt, ...args, '--quiet', '--out', out], {
      env: { ...process.env, OMP_NUM_THREADS: '1' },
    });
    return await pixelsOf(out);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** Events of an answer as they come. */
export async function* serverSentEvents(response: Response): AsyncGenerator<{ event: string; data: never }> {
  let text = '';
  const decoder = new TextDecoder();
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    text += decoder.decode(chunk, { stream: true });
    const blocks = text.split('\n\n');
    text = blocks.pop()!;
    for (const block of blocks) {
      const event = /^event: (.*)$/m.exec(block)?.[1];
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (event && data) {
        yield { event, data: JSON.parse(data) as never };
      }
    }
  }
}
