import { type Command, Option } from 'commander';
import { ATTENTION_NAMES } from '../attention/methods/options.js';
import { BACKEND_NAMES } from '../backends/index.js';
import { TINY_SHAPES } from '../pipelines/index.js';
import { type EmbeddingFlag, embeddingOption, type LoraFlag, loraOption } from './adapters.js';
import { countOption, jsonObjectOption, numberOption, seedOption } from './option_values.js';

/** A command that draws. */
export type DrawingCommand = 'txt2img' | 'img2img' | 'inpaint';

/** Where a flag's value goes: into the options of `fromPretrained`, those of the pipeline's call, or the command itself. */
type Destination = { load: string } | { call: string } | 'command';

/** One flag: how it is written, what it means, how it is read, and where it goes. README's table is made of these. */
export interface OptionRow {
  flags: string;
  text: string;
  to: Destination;
  /** Reads a value; for a flag that can stand several times also what came before. */
  parse?: (text: string, previous: unknown) => unknown;
  choices?: readonly string[];
  default?: unknown;
  /** How the default reads, where it is none that could be typed. */
  defaultText?: string;
  /** The commands that have it; all without. */
  only?: readonly DrawingCommand[];
  required?: boolean;
}

export const OPTIONS: readonly OptionRow[] = [
  {
    flags: '--model <path or id>',
    text: "directory in diffusers' layout, single .safetensors file in the original one, or a repository of the Hugging Face hub",
    default: TINY_SHAPES,
    defaultText: 'tiny-shapes',
    to: 'command',
  },
  {
    flags: '--from <picture>',
    text: 'draws a picture again by the settings in its file; no prompt, and of the options only `--model`, `--image`, `--mask`, `--lora`, `--embedding`, `--vae`, `--out`',
    to: 'command',
  },
  {
    flags: '--image <path>',
    text: 'picture to begin with',
    to: { call: 'image' },
    only: ['img2img', 'inpaint'],
    required: true,
  },
  {
    flags: '--mask <path>',
    text: 'picture of the same size, white where the other is drawn anew',
    to: { call: 'maskImage' },
    only: ['inpaint'],
    required: true,
  },
  {
    flags: '--padding-mask-crop <pixels>',
    text: 'draws the masked region alone, enlarged, with so many pixels around it',
    parse: countOption(0),
    to: { call: 'paddingMaskCrop' },
    only: ['inpaint'],
  },
  {
    flags: '--strength <n>',
    text: 'how much of the picture is drawn anew, 0 to 1',
    parse: numberOption(0, 1),
    defaultText: "the pipeline's: 0.8, inpaint 1",
    to: { call: 'strength' },
    only: ['img2img', 'inpaint'],
  },
  { flags: '--negative <text>', text: 'what to leave out of the picture', to: { call: 'negativePrompt' } },
  {
    flags: '--steps <n>',
    text: 'denoising steps',
    parse: countOption(1),
    default: 20,
    to: { call: 'numInferenceSteps' },
  },
  {
    flags: '--guidance <n>',
    text: 'weight of the prompt; 1 turns guidance off',
    parse: numberOption(),
    default: 7.5,
    to: { call: 'guidanceScale' },
  },
  {
    flags: '--guidance-rescale <n>',
    text: 'counters over-exposure, 0 to 1',
    parse: numberOption(0, 1),
    default: 0,
    to: { call: 'guidanceRescale' },
  },
  {
    flags: '--seed <n>',
    text: 'the same seed gives the same picture',
    parse: seedOption,
    defaultText: 'random, printed',
    to: 'command',
  },
  {
    flags: '--scheduler <name>',
    text: '`EulerDiscreteScheduler`, `euler_a`, `"DPM++ 2M Karras"`, ...',
    defaultText: "the model's",
    to: 'command',
  },
  {
    flags: '--scheduler-config <json>',
    text: 'entries that win over `scheduler_config.json`',
    parse: jsonObjectOption,
    to: 'command',
  },
  {
    flags: '--width <pixels>',
    text: "a multiple of what the model's VAE needs (8 for Stable Diffusion)",
    parse: countOption(1),
    defaultText: "the model's",
    to: { call: 'width' },
    only: ['txt2img', 'inpaint'],
  },
  {
    flags: '--height <pixels>',
    text: 'the same',
    parse: countOption(1),
    defaultText: "the model's",
    to: { call: 'height' },
    only: ['txt2img', 'inpaint'],
  },
  {
    flags: '--batch <n>',
    text: 'pictures at once, saved in numbered files',
    parse: countOption(1),
    default: 1,
    to: { call: 'numImagesPerPrompt' },
  },
  {
    flags: '--clip-skip <n>',
    text: 'layers of the text encoder to leave out',
    parse: countOption(0),
    defaultText: '0',
    to: { call: 'clipSkip' },
  },
  {
    flags: '--eta <n>',
    text: "noise of DDIM's steps, 0 to 1",
    parse: numberOption(0, 1),
    default: 0,
    to: { call: 'eta' },
  },
  {
    flags: '--prompt-syntax <name>',
    text: '`a1111` reads `(word:1.3)`, `[word]` and prompts of any length',
    choices: ['diffusers', 'a1111'],
    default: 'diffusers',
    to: { call: 'promptSyntax' },
  },
  {
    flags: '--lora <file>',
    text: 'a LoRA, `file` or `file:weight`; may stand several times. With `a1111` prompts can name it: `<lora:file:0.8>`',
    parse: loraOption,
    to: 'command',
  },
  {
    flags: '--embedding <file>',
    text: 'a textual inversion, `file` or `word=file`; may stand several times. The word is the one in the file, or its name',
    parse: embeddingOption,
    to: 'command',
  },
  {
    flags: '--attention <name>',
    text: 'how attention is computed, see below',
    choices: ATTENTION_NAMES,
    defaultText: 'auto',
    to: { load: 'attention' },
  },
  {
    flags: '--token-merging <ratio>',
    text: 'merges similar tokens in self-attention, 0 to 0.75',
    parse: numberOption(0, 0.75),
    defaultText: '0',
    to: 'command',
  },
  {
    flags: '--negative-guidance-min-sigma <n>',
    text: 'below this noise level every other step leaves the negative prompt out',
    parse: numberOption(0),
    defaultText: '0',
    to: { call: 'negativeGuidanceMinSigma' },
  },
  {
    flags: '--skip-early-cond <share>',
    text: 'share of the first steps without negative prompt, 0 to 1',
    parse: numberOption(0, 1),
    defaultText: '0',
    to: { call: 'skipEarlyCond' },
  },
  {
    flags: '--offload <way>',
    text: '`model` or `sequential`: only the model, or the block, at work is in memory',
    choices: ['model', 'sequential'],
    to: 'command',
  },
  {
    flags: '--vae <path>',
    text: "a VAE in place of the model's: a directory with config.json, or a .safetensors file",
    to: 'command',
  },
  { flags: '--vae-slicing', text: 'decodes a batch picture by picture', to: 'command' },
  { flags: '--vae-tiling', text: 'decodes large pictures in overlapping tiles', to: 'command' },
  {
    flags: '--backend <name>',
    text: 'see Backends',
    choices: ['auto', ...BACKEND_NAMES],
    default: 'auto',
    to: { load: 'backend' },
  },
  {
    flags: '--dtype <name>',
    text: '`float32`, `bfloat16`, `float16`, on backends that have them',
    choices: ['float32', 'bfloat16', 'float16'],
    default: 'float32',
    to: { load: 'dtype' },
  },
  { flags: '--variant <name>', text: 'weight files such as `fp16`', to: { load: 'variant' } },
  { flags: '--revision <name>', text: 'branch, tag or commit on the hub', to: { load: 'revision' } },
  {
    flags: '--out <path>',
    text: '`.png`, `.jpg` or `.webp`',
    defaultText: 'a new file named after the prompt',
    to: 'command',
  },
  {
    flags: '--preview <path>',
    text: 'a file that shows the picture as it looks after each step, for a viewer that watches it',
    to: 'command',
  },
  {
    flags: '--preview-vae <dir>',
    text: 'decodes the previews with the `AutoencoderTiny` (TAESD) of that directory',
    to: 'command',
  },
  {
    flags: '--json',
    text: 'one JSON object: files, seconds of each stage and step, peak memory, seeds, versions',
    to: 'command',
  },
  { flags: '--quiet', text: 'no progress and no notes', to: 'command' },
];

/** The values that the command uses itself; the others go into the options of the pipeline, see `optionsFor`. */
export interface CommandValues {
  model: string;
  seed?: bigint;
  scheduler?: string;
  schedulerConfig?: Record<string, unknown>;
  attention?: string;
  /** Picture to draw again. */
  from?: string;
  image?: string;
  lora?: readonly LoraFlag[];
  embedding?: readonly EmbeddingFlag[];
  mask?: string;
  batch: number;
  steps: number;
  width?: number;
  height?: number;
  tokenMerging?: number;
  offload?: 'model' | 'sequential';
  vae?: string;
  vaeSlicing?: boolean;
  vaeTiling?: boolean;
  out?: string;
  preview?: string;
  previewVae?: string;
  json?: boolean;
  quiet?: boolean;
}

/** What commander hands to the command: values under the flags' names in camelCase. */
export type OptionValues = CommandValues & Readonly<Record<string, unknown>>;

/** The option's name in commander's values: '--clip-skip <n>' is clipSkip. */
const keyOf = (flags: string): string => new Option(flags).attributeName();

/** Adds the flags that `command` has to its parser. */
export function addOptions(parser: Command, command: DrawingCommand): void {
  for (const row of OPTIONS.filter(({ only }) => only?.includes(command) ?? true)) {
    const option = new Option(row.flags, row.text.replaceAll('`', ''));
    if (row.parse) {
      option.argParser(row.parse);
    }
    if (row.choices) {
      option.choices(row.choices);
    }
    if (row.default !== undefined) {
      option.default(row.default, row.defaultText);
    }
    parser.addOption(option.makeOptionMandatory(row.required ?? false));
  }
}

/** The values that go into the options of `fromPretrained` ('load') or of the call ('call'), under their names there. */
export function optionsFor(destination: 'load' | 'call', values: OptionValues): Record<string, unknown> {
  const picked: Record<string, unknown> = {};
  for (const { flags, to } of OPTIONS) {
    const name = typeof to === 'object' ? (to as Record<string, string>)[destination] : undefined;
    const value = values[keyOf(flags)];
    if (name !== undefined && value !== undefined) {
      picked[name] = value;
    }
  }
  return picked;
}
