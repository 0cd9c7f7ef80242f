import type { PhysicalType } from '../backends/types.js';
import type { StateDict } from '../loaders/state_dict.js';
import { type LoadOptions, matchStateDict } from './load_state_dict.js';
import type { Parameter } from './parameter.js';

/**
 * Weights that are in memory only while they are needed: a model's parameters and the checkpoint that they are read from
 * again each time.
 */
export class WeightStore {
  private readonly keys: Map<Parameter, string>;

  /**
   * @param dict stays open until close()
   * @throws StateDictError when the checkpoint does not fit the parameters
   */
  constructor(
    parameters: readonly Parameter[],
    private readonly dict: StateDict,
    private readonly dtype: PhysicalType,
    options: LoadOptions = {},
  ) {
    this.keys = matchStateDict(parameters, dict, options);
  }

  /** Reads those of the parameters that are not in memory. */
  load(parameters: Iterable<Parameter>): void {
    for (const parameter of parameters) {
      if (!parameter.isLoaded) {
        const key = this.keys.get(parameter)!;
        parameter.load(this.dict.readSync(key), this.dict.info(key)!.dtype, this.dtype);
      }
    }
  }

  /** Frees the parameters' memory. */
  release(parameters: Iterable<Parameter>): void {
    for (const parameter of parameters) {
      parameter.dispose();
    }
  }

  /** Runs `f` with the parameters in memory, and frees them afterwards. */
  using<T>(parameters: readonly Parameter[], f: () => T): T {
    this.load(parameters);
    try {
      return f();
    } finally {
      this.release(parameters);
    }
  }

  close(): Promise<void> {
    return this.dict.close();
  }
}
