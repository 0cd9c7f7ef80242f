import { is } from '../../utils/check.js';
import { type Check, COUNT, choice, LORA_SCALE, NUMBER, NUMBERS, SHARE } from './options.js';

/** How an option of a call stands in a picture's metadata. */
export interface RecordedOption {
  /** The web UI's name; ours where it has none. */
  label: string;
  check: Check;
  /** Undefined for what changes nothing. */
  write(value: unknown): string | undefined;
  read(text: string): unknown;
}

function recorded(label: string, check: Check, changes: Partial<RecordedOption> = {}): RecordedOption {
  return { label, check, write: (value) => String(value), read: parseNumber, ...changes };
}

/** A number that changes nothing where it is 0. */
const amount = (label: string, check: Check) =>
  recorded(label, check, { write: (value) => (value === 0 ? undefined : String(value)) });

const numbers = (label: string) =>
  recorded(label, NUMBERS, {
    write: (value) => JSON.stringify(Array.from(value as ArrayLike<number>)),
    read: parseJson,
  });

/** A number, or a list with one for each ControlNet. */
const numberOrNumbers = (label: string) =>
  recorded(label, [(value) => is.number(value) || is.numbers(value), 'a number or a list of numbers'], {
    write: (value) => JSON.stringify(value),
    read: parseJson,
  });

const texts = (label: string) =>
  recorded(label, [(value) => [value].flat().every(is.string), 'a text or a list of texts'], {
    write: (value) => JSON.stringify(value),
    read: parseJson,
  });

/** A number; any other text stays, for the check to refuse. */
function parseNumber(text: string): number | string {
  return text.trim() === '' || Number.isNaN(Number(text)) ? text : Number(text);
}

/** The value of a JSON text; a text that is none stays, for the check to refuse. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const LEVEL: Check = [(value) => is.number(value) && value >= 0, 'a noise level of at least 0'];

/**
 * Options of calls by which a picture can be drawn again, beside prompts, seeds, sizes, steps and pictures. `Clip skip`
 * counts from 1 in the web UI, where diffusers' 0 or none means the last layer.
 */
export const RECORDED_OPTIONS: Readonly<Record<string, RecordedOption>> = {
  guidanceScale: recorded('CFG scale', NUMBER),
  strength: recorded('Denoising strength', SHARE),
  clipSkip: recorded('Clip skip', [is.whole, 'a whole number of at least 1'], {
    write: (value) => String((value as number) + 1),
    read: (text) => Number(text) - 1,
  }),
  guidanceRescale: amount('CFG Rescale', NUMBER),
  eta: amount('Eta', SHARE),
  negativeGuidanceMinSigma: amount('NGMS', LEVEL),
  negativeGuidanceSteps: recorded('NGMS all steps', choice(['alternate', 'all']), {
    write: (value) => (value === 'all' ? 'True' : undefined),
    read: (text) => (text === 'True' ? 'all' : text),
  }),
  skipEarlyCond: amount('Skip Early CFG', SHARE),
  prompt2: texts('Prompt 2'),
  negativePrompt2: texts('Negative prompt 2'),
  originalSize: numbers('originalSize'),
  cropsCoordsTopLeft: numbers('cropsCoordsTopLeft'),
  targetSize: numbers('targetSize'),
  negativeOriginalSize: numbers('negativeOriginalSize'),
  negativeCropsCoordsTopLeft: numbers('negativeCropsCoordsTopLeft'),
  negativeTargetSize: numbers('negativeTargetSize'),
  aestheticScore: recorded('aestheticScore', NUMBER),
  negativeAestheticScore: recorded('negativeAestheticScore', NUMBER),
  denoisingStart: recorded('denoisingStart', SHARE),
  denoisingEnd: recorded('denoisingEnd', SHARE),
  imageGuidanceScale: recorded('Image CFG scale', NUMBER),
  paddingMaskCrop: recorded('Masked area padding', [is.whole, 'a whole number of pixels']),
  width: recorded('width', COUNT),
  height: recorded('height', COUNT),
  controlnetConditioningScale: numberOrNumbers('Control weight'),
  controlGuidanceStart: numberOrNumbers('Control guidance start'),
  controlGuidanceEnd: numberOrNumbers('Control guidance end'),
  guessMode: recorded('Control guess mode', [is.boolean, 'true or false'], {
    write: (value) => (value === true ? 'True' : undefined),
    read: (text) => (text === 'True' ? true : text),
  }),
  promptSyntax: recorded('promptSyntax', choice(['diffusers', 'a1111']), { read: (text) => text }),
  crossAttentionKwargs: recorded('crossAttentionKwargs', LORA_SCALE, {
    write: (value) => JSON.stringify(value),
    read: parseJson,
  }),
  timesteps: numbers('timesteps'),
  sigmas: numbers('sigmas'),
  mu: recorded('mu', NUMBER),
  originalInferenceSteps: recorded('originalInferenceSteps', COUNT),
  numImagesPerPrompt: recorded('numImagesPerPrompt', COUNT, {
    write: (value) => (value === 1 ? undefined : String(value)),
  }),
};
