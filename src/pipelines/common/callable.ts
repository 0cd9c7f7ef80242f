import type { Images, Output, OutputType } from './options.js';

/** One or several texts; undefined where embeddings are given in their place. */
export type Prompt = string | readonly string[] | undefined;

/** The call of a pipeline. */
export type PipelineCall<Options> = <O extends OutputType = 'image'>(
  prompt: Prompt,
  options?: Options & { outputType?: O },
) => Promise<Output<Images<O>>>;

/** Function objects whose prototype is the class and whose call is the method `run`. */
class CallableInstance {
  constructor() {
    const call = (...args: unknown[]) => (call as unknown as { run(...args: unknown[]): unknown }).run(...args);
    // biome-ignore lint/correctness/noConstructorReturn: the returned function is the instance
    return Object.setPrototypeOf(call, new.target.prototype);
  }
}

/** Base of a class whose instances are functions, as transformers.js's pipelines are; the class provides the method `run`. */
export const Callable = CallableInstance as unknown as abstract new <Options>() => PipelineCall<Options>;
