import { Command, CommanderError, Option } from 'commander';
import { ATTENTION_NAMES } from '../attention/methods/options.js';
import { BACKEND_NAMES } from '../backends/index.js';
import { EXIT, reportError, usageMessage } from './exit.js';
import { interruption } from './interruption.js';
import { countOption, jsonObjectOption, numberOption, seedOption } from './option_values.js';
import { packageVersion, SHIPPED_MODEL } from './package_info.js';
import { ProgressDisplay } from './progress.js';
import type { Txt2ImgOptions } from './txt2img.js';

const DTYPES = ['float32', 'bfloat16', 'float16'];

/** Runs the command line and gives the exit code: 0, 1 for a failure, 2 for wrong usage, 128 + signal when stopped. */
export async function runCommandLine(argv: readonly string[]): Promise<number> {
  let code: number = EXIT.ok;
  const program = commandLine(async (run) => {
    code = await run();
  });
  try {
    await program.parseAsync(argv as string[]);
    return code;
  } catch (error) {
    if (error instanceof CommanderError) {
      return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    }
    return reportError(error, undefined);
  }
}

function commandLine(execute: (run: () => Promise<number>) => Promise<void>): Command {
  const program = new Command('tfjs-diffusers')
    .description('Draws pictures from text with Stable Diffusion, on TensorFlow.js.')
    .version(packageVersion())
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(usageMessage(text.replace(/^error: /, '').trim())) })
    .argument('<prompt>', 'what the picture shall show')
    .option(
      '--model <dir or id>',
      "directory in diffusers' layout, or a repository of the Hugging Face hub",
      SHIPPED_MODEL,
    )
    .option('--negative <text>', 'what the picture shall not show')
    .option('--steps <n>', 'denoising steps', countOption(1), 20)
    .option('--guidance <n>', 'weight of the prompt; 1 turns guidance off', numberOption(), 7.5)
    .option('--guidance-rescale <n>', 'counters over-exposure, 0 to 1', numberOption(0, 1), 0)
    .option(
      '--seed <n>',
      'start of the random numbers; the same seed gives the same picture (default: random)',
      seedOption,
    )
    .option('--scheduler <name>', "diffusers' class name or the usual short one, such as euler_a or dpmpp_2m_karras")
    .option('--scheduler-config <json>', "entries that win over the model's scheduler_config.json", jsonObjectOption)
    .option('--width <pixels>', "default: the model's own", countOption(1))
    .option('--height <pixels>', "default: the model's own", countOption(1))
    .option('--batch <n>', 'pictures to draw at once', countOption(1), 1)
    .option('--clip-skip <n>', 'layers of the text encoder to leave out', countOption(0))
    .addOption(
      new Option('--prompt-syntax <name>', 'a1111 reads (word:1.3), [word] and prompts of any length')
        .choices(['diffusers', 'a1111'])
        .default('diffusers'),
    )
    .option('--eta <n>', "noise of DDIM's steps, 0 to 1", numberOption(0, 1), 0)
    .addOption(new Option('--attention <name>', 'how attention is computed').choices(ATTENTION_NAMES))
    .addOption(new Option('--backend <name>', 'tfjs backend').choices(['auto', ...BACKEND_NAMES]).default('auto'))
    .addOption(new Option('--dtype <name>', 'numbers of native backends').choices(DTYPES).default('float32'))
    .option(
      '--token-merging <ratio>',
      'share of similar tokens to merge in self-attention, 0 to 0.75',
      numberOption(0, 0.75),
    )
    .option(
      '--negative-guidance-min-sigma <sigma>',
      'below this noise level every other step leaves the negative prompt out',
      numberOption(0),
    )
    .option('--skip-early-cond <share>', 'share of first steps without negative prompt, 0 to 1', numberOption(0, 1))
    .addOption(
      new Option('--offload <way>', 'keeps only the model, or only the UNet block, at work in memory').choices([
        'model',
        'sequential',
      ]),
    )
    .option('--vae-slicing', 'decodes one picture of a batch at a time')
    .option('--vae-tiling', 'decodes large pictures in overlapping tiles')
    .option('--variant <name>', 'variant of the weight files, such as fp16')
    .option('--revision <name>', 'branch, tag or commit on the hub')
    .option(
      '--out <path>',
      'a .png, .jpg or .webp file; several pictures are numbered (default: named after the prompt)',
    )
    .option('--json', 'print one JSON object about the pictures: files, seconds, bytes, seeds')
    .option('--quiet', 'no progress and no notes')
    .action((prompt: string, options: Txt2ImgOptions) => execute(() => draw(prompt, options)));
  program
    .command('doctor')
    .description('say which backends work here and what would make drawing faster')
    .option('--json', 'print one JSON object')
    .action((options: { json?: boolean }) => execute(() => diagnose(options)));
  return program;
}

async function draw(prompt: string, options: Txt2ImgOptions): Promise<number> {
  const display = new ProgressDisplay(options.quiet === true);
  const interrupted = interruption(() => display.close());
  try {
    const { txt2img } = await import('./txt2img.js');
    await txt2img(prompt, options, display, interrupted);
    return EXIT.ok;
  } catch (error) {
    display.close();
    return reportError(error, interrupted.exitCode());
  }
}

async function diagnose(options: { json?: boolean }): Promise<number> {
  try {
    const { doctor } = await import('./doctor.js');
    return (await doctor(options)) ? EXIT.ok : EXIT.failure;
  } catch (error) {
    return reportError(error, undefined);
  }
}
