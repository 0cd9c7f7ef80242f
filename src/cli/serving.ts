import { type Command, Option } from 'commander';
import { ATTENTION_NAMES } from '../attention/methods/options.js';
import { BACKEND_NAMES } from '../backends/index.js';
import type { ServeValues } from './commands/serve.js';
import { EXIT, reportError } from './exit.js';
import { interruption } from './interruption.js';
import { countOption, numberOption } from './option_values.js';

type Execute = (run: () => Promise<number>) => Promise<void>;

const list = (value: string, before: string[] = []): string[] => [...before, value];
const DTYPES = ['float32', 'bfloat16', 'float16'];

/** How models are loaded, for the commands that draw for others. */
function addLoading(command: Command): Command {
  return command
    .option('--model <dir or id>', 'model to draw with; may be given again, the first one is the default', list)
    .option('--models <dir>', 'a directory whose checkpoints are all offered')
    .option('--loras <dir>', 'a directory with LoRA files')
    .option('--workers <n>', 'pictures that are drawn at the same time', countOption(1), 1)
    .option('--memory-limit <GB>', 'what all models in memory may take', numberOption(0.1))
    .addOption(new Option('--backend <name>', 'what computes').choices(['auto', ...BACKEND_NAMES]).default('auto'))
    .addOption(new Option('--dtype <name>', 'how numbers are stored').choices(DTYPES).default('float32'))
    .addOption(new Option('--attention <name>', 'how attention is computed').choices(ATTENTION_NAMES))
    .option('--quiet', 'print only errors');
}

/** Adds `serve`. */
export function addServe(program: Command, execute: Execute): void {
  const command = program
    .command('serve')
    .description('draw for others: a page, and the APIs of OpenAI and stable-diffusion-webui');
  addLoading(command)
    .option('--host <address>', 'where to listen; 0.0.0.0 is everywhere', '127.0.0.1')
    .option('--port <n>', 'port, 0 for a free one', countOption(0), 7860)
    .option('--api-key <key>', 'clients must show it; may be given again', list, keysOfEnvironment())
    .option('--allowed-host <name>', 'another name of this server; may be given again', list, [])
    .option('--cors-origin <origin>', 'pages of this origin may use the server; may be given again', list, [])
    .option('--max-pixels <n>', 'pixels of a picture', countOption(64))
    .option('--max-steps <n>', 'steps of a picture', countOption(1))
    .option('--max-pictures <n>', 'pictures of a request', countOption(1))
    .option('--max-queue <n>', 'jobs that may wait', countOption(1))
    .option('--keep <seconds>', 'how long results are kept', numberOption(1))
    .action((values: ServeValues) => execute(() => serving(values)));
}

/** So that keys need not stand in a list of processes. */
function keysOfEnvironment(): string[] {
  return (process.env.TFJS_DIFFUSERS_API_KEY ?? '').split(',').filter((key) => key !== '');
}

async function serving(values: ServeValues): Promise<number> {
  const interrupted = interruption(() => undefined);
  try {
    const { serve } = await import('./commands/serve.js');
    await serve(values, interrupted.signal);
    return EXIT.ok;
  } catch (error) {
    return reportError(error, interrupted.exitCode());
  }
}
