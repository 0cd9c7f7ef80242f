import type { PhysicalType } from '../backends/types.js';
import { AbortedError, StateDictError } from '../errors.js';
import type { StateDict, StorageType } from '../loaders/state_dict.js';
import type { Parameter } from '../nn/index.js';

export interface LoadStateDictOptions {
  /** How native backends store the weights; other backends always hold float32. Default 'float32'. */
  dtype?: PhysicalType;
  /** Keys of the checkpoint that are not weights (buffers) and are passed over. */
  ignore?: RegExp;
  /** Names the checkpoint in errors. */
  source?: string;
  signal?: AbortSignal;
  /** Called after each tensor with the numbers of tensors read and in all. */
  onProgress?: (loaded: number, total: number) => void;
}

const MAX_LISTED = 20;

/** Integers hold ids and positions; a weight of such a type has been damaged or mislabelled. */
const WEIGHT_TYPES: readonly StorageType[] = ['F64', 'F32', 'F16', 'BF16', 'F8_E4M3', 'F8_E5M2'];

/** The items under their title, those past the first twenty by their number; '' for none. */
export function list(title: string, items: readonly string[]): string {
  if (items.length === 0) {
    return '';
  }
  const more = items.length > MAX_LISTED ? `\n    and ${items.length - MAX_LISTED} more` : '';
  return `\n  ${title}:\n    ${items.slice(0, MAX_LISTED).join('\n    ')}${more}`;
}

/** Matches parameters with a checkpoint's keys; throws one error that lists all that does not fit. */
export function matchStateDict(
  parameters: readonly Parameter[],
  dict: StateDict,
  { ignore, source = 'checkpoint' }: LoadStateDictOptions = {},
): Map<Parameter, string> {
  const missing: string[] = [];
  const wrong: string[] = [];
  const mistyped: string[] = [];
  const keys = new Map<Parameter, string>();
  const unused = new Set(dict.keys().filter((key) => !ignore?.test(key)));
  for (const parameter of parameters) {
    const key = parameter.paths.find((path) => dict.info(path));
    if (key === undefined) {
      missing.push(`${parameter.path} [${parameter.shape}]`);
      continue;
    }
    unused.delete(key);
    const { shape, dtype } = dict.info(key)!;
    if (!parameter.accepts(shape)) {
      wrong.push(`${key}: expected [${parameter.shape}], got [${shape}]`);
    }
    if (!WEIGHT_TYPES.includes(dtype)) {
      mistyped.push(`${key}: expected ${WEIGHT_TYPES.join(', ')}, got ${dtype}`);
    }
    keys.set(parameter, key);
  }
  if (missing.length + wrong.length + mistyped.length + unused.size > 0) {
    throw new StateDictError(
      `${source} does not fit the model that its config.json describes:` +
        list('missing', missing) +
        list('of another shape', wrong) +
        list('of a type that is not for weights', mistyped) +
        list('unused', [...unused]),
    );
  }
  return keys;
}

/**
 * Reads every parameter from a checkpoint, one tensor at a time.
 *
 * @throws StateDictError when tensors are missing, left over or of another shape; nothing has been loaded then
 * @throws AbortedError through the signal; what had been loaded is disposed of
 */
export async function loadStateDict(
  parameters: readonly Parameter[],
  dict: StateDict,
  options: LoadStateDictOptions = {},
): Promise<void> {
  const keys = matchStateDict(parameters, dict, options);
  const { dtype = 'float32', signal, onProgress } = options;
  try {
    let loaded = 0;
    for (const [parameter, key] of keys) {
      if (signal?.aborted) {
        throw new AbortedError(`loading ${options.source ?? 'the checkpoint'} was stopped`, { cause: signal.reason });
      }
      const bytes = await dict.read(key);
      parameter.load(bytes, dict.info(key)!.dtype, dtype);
      onProgress?.(++loaded, keys.size);
    }
  } catch (error) {
    for (const parameter of parameters) {
      parameter.dispose();
    }
    throw error;
  }
}
