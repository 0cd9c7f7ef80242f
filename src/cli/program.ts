import { Command, CommanderError } from 'commander';
import type { TensorFlowOptions } from './commands/tensorflow.js';
import { EXIT, reportError, usageMessage } from './exit.js';
import { interruption } from './interruption.js';
import { addOptions, type DrawingCommand, type OptionValues } from './options.js';
import { packageVersion } from './package_info.js';
import { ProgressDisplay } from './progress.js';
import { addServe } from './serving.js';

type Execute = (run: () => Promise<number>) => Promise<void>;

const DRAWING: Record<DrawingCommand, string> = {
  txt2img: 'draw pictures from a text; what is done when no command is named',
  img2img: 'draw pictures from a text, beginning with a picture',
  inpaint: 'draw parts of a picture anew',
};

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

function commandLine(execute: Execute): Command {
  const program = new Command('tfjs-diffusers')
    .description('Draws pictures from text with Stable Diffusion, on TensorFlow.js.')
    .version(packageVersion())
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(usageMessage(text.replace(/^error: /, '').trim())) });
  for (const name of Object.keys(DRAWING) as DrawingCommand[]) {
    addDrawingCommand(program, name, execute);
  }
  program
    .command('doctor')
    .description('say which backends work here and what would make drawing faster')
    .option('--json', 'print one JSON object')
    .action((options: { json?: boolean }) => execute(() => diagnose(options)));
  addServe(program, execute);
  program
    .command('tensorflow')
    .description('put the @tensorflow/tfjs-node of this project on another TensorFlow, for --backend tensorflow')
    .option('--wheel <file>', 'a Python wheel of TensorFlow (pip download --no-deps tensorflow-cpu)')
    .option('--libtensorflow <folder>', 'an unpacked TensorFlow: libraries and headers')
    .action((options: TensorFlowOptions) => execute(() => putOnTensorFlow(options)));
  program.addHelpText('after', () => `\n${program.commands[0]!.helpInformation()}`);
  return program;
}

function addDrawingCommand(program: Command, name: DrawingCommand, execute: Execute): void {
  const command = program
    .command(name, { isDefault: name === 'txt2img' })
    .description(DRAWING[name])
    .argument('[prompt]', 'what the picture shows; needed but with --from')
    .action((prompt: string | undefined, values: OptionValues) => {
      if (prompt === undefined && values.from === undefined) {
        command.error("missing required argument 'prompt'");
      }
      if (prompt !== undefined && values.from !== undefined) {
        command.error('--from takes the prompt from the picture; leave the prompt out');
      }
      return execute(() => drawPictures(name, prompt, values));
    });
  addOptions(command, name);
}

async function drawPictures(
  command: DrawingCommand,
  prompt: string | undefined,
  values: OptionValues,
): Promise<number> {
  const display = new ProgressDisplay(values.quiet === true);
  const interrupted = interruption(() => display.close());
  try {
    const { draw } = await import('./commands/draw.js');
    const { redrawPicture } = await import('./commands/redraw.js');
    await (prompt === undefined
      ? redrawPicture(values, display, interrupted)
      : draw(command, prompt, values, display, interrupted));
    return EXIT.ok;
  } catch (error) {
    display.close();
    return reportError(error, interrupted.exitCode());
  }
}

async function putOnTensorFlow(options: TensorFlowOptions): Promise<number> {
  try {
    const { changeTensorFlow } = await import('./commands/tensorflow.js');
    changeTensorFlow(options);
    return EXIT.ok;
  } catch (error) {
    return reportError(error, undefined);
  }
}

async function diagnose(options: { json?: boolean }): Promise<number> {
  try {
    const { doctor } = await import('./commands/doctor.js');
    return (await doctor(options)) ? EXIT.ok : EXIT.failure;
  } catch (error) {
    return reportError(error, undefined);
  }
}
