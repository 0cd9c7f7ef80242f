import { files, images } from '#platform';
import { InvalidArgumentError } from '../errors.js';
import { readUserComment } from './exif.js';
import { isPng, readPngText } from './png.js';

/** Prompt and settings of a picture, for its metadata. */
export interface GenerationParameters {
  prompt: string;
  negativePrompt?: string;
  steps: number;
  /** Name of the sampler, for instance 'Euler'. */
  sampler: string;
  guidanceScale: number;
  seed?: number | bigint;
  width: number;
  height: number;
  /** Name of the checkpoint. */
  model?: string;
  clipSkip?: number;
  /** Further settings, as they shall read: `{Eta: 0.5}`; those undefined are left out. */
  extra?: Readonly<Record<string, string | number | bigint | boolean | undefined>>;
}

/** What a parameters text says: the prompts and each setting as text, under A1111's names. */
export interface ParsedParameters {
  prompt: string;
  negativePrompt: string;
  settings: Record<string, string>;
}

/** The key under which A1111 and its kin keep prompt and settings in a PNG. */
export const PARAMETERS_KEY = 'parameters';

/** Larger files are refused before they are read. */
const MAX_PICTURE_BYTES = 2 ** 30;

/** As it is where it reads back so, else as JSON. */
const quote = (value: string): string => (/[,:\n\r]|^[\s"]|\s$/.test(value) ? JSON.stringify(value) : value);

/**
 * Prompt and settings as A1111's web UI writes them (modules/processing.py, create_infotext): the prompt, a line
 * 'Negative prompt: ...' where there is one, and 'Steps: 20, Sampler: Euler, CFG scale: 7.5, Seed: 0, Size: 64x64, ...'.
 */
export function a1111Parameters(parameters: GenerationParameters): string {
  const { prompt, negativePrompt, width, height, extra } = parameters;
  const settings: Record<string, string | number | bigint | boolean | undefined> = {
    Steps: parameters.steps,
    Sampler: parameters.sampler,
    'CFG scale': parameters.guidanceScale,
    Seed: parameters.seed,
    Size: `${width}x${height}`,
    Model: parameters.model,
    'Clip skip': parameters.clipSkip,
    ...extra,
  };
  const line = Object.entries(settings)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}: ${quote(String(value))}`)
    .join(', ');
  return `${prompt}${negativePrompt ? `\nNegative prompt: ${negativePrompt}` : ''}\n${line}`.trim();
}

/** A setting's value from its colon on: quoted, or up to the next comma. */
const VALUE = /\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)/y;
/** Longer lines are prompts: the web UI's settings, with every extension, take a few thousand characters. */
const MAX_SETTINGS_LENGTH = 100_000;

/** Names and values of a line, wherever in it they stand: a name is what reaches from a word's begin to a colon. */
function settingsOf(line: string): [name: string, value: string][] {
  const found: [string, string][] = [];
  let position = 0;
  for (let colon = line.indexOf(':'); colon >= 0; colon = line.indexOf(':', position)) {
    let start = colon;
    while (start > position && /[\w \-/]/.test(line[start - 1]!)) {
      start--;
    }
    const name = line.slice(start, colon).replace(/^[ \-/]+/, '');
    position = colon + 1;
    if (name.length >= 2) {
      VALUE.lastIndex = position;
      const match = VALUE.exec(line)!;
      found.push([name, match[1]!]);
      position = VALUE.lastIndex;
    }
  }
  return found;
}

/** Takes a parameters text apart, as A1111 does (modules/infotext_utils.py, parse_generation_parameters). */
export function parseParameters(text: string): ParsedParameters {
  const lines = text.trim().split('\n');
  const last = lines.at(-1)!;
  const found = last.length <= MAX_SETTINGS_LENGTH ? settingsOf(last) : [];
  const settings: Record<string, string> = {};
  if (found.length >= 3) {
    lines.pop();
    for (const [name, value] of found) {
      settings[name] = value.startsWith('"') && value.endsWith('"') ? unquote(value) : value;
    }
  }
  const negative = lines.findIndex((line) => line.trim().startsWith('Negative prompt:'));
  const prompt = (negative < 0 ? lines : lines.slice(0, negative)).join('\n').trim();
  const negativePrompt = (negative < 0 ? '' : lines.slice(negative).join('\n').trim()).replace(
    /^Negative prompt:\s*/,
    '',
  );
  return { prompt, negativePrompt, settings };
}

function unquote(text: string): string {
  try {
    return JSON.parse(text) as string;
  } catch {
    return text;
  }
}

/**
 * The prompt and settings that a picture carries (a PNG's `parameters` text, a JPEG's or WebP's EXIF UserComment), as
 * text; undefined when it carries none. `parseParameters` takes the text apart.
 * @throws {InvalidArgumentError} when the file cannot be read or is not a picture
 */
export async function readParameters(pathOrBuffer: string | Uint8Array): Promise<string | undefined> {
  try {
    const bytes =
      typeof pathOrBuffer === 'string' ? await files.readBytes(pathOrBuffer, MAX_PICTURE_BYTES) : pathOrBuffer;
    if (isPng(bytes)) {
      return await readPngText(bytes, PARAMETERS_KEY);
    }
    const exif = await images.exif(bytes);
    return exif && readUserComment(exif);
  } catch (error) {
    const what = typeof pathOrBuffer === 'string' ? `'${pathOrBuffer}'` : 'the picture';
    throw new InvalidArgumentError(`[readParameters] cannot read ${what}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
