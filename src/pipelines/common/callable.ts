import type { Images, Output, OutputType } from './options.js';

/** One or several texts; undefined where embeddings are given in their place. */
export type Prompt = string | readonly string[] | undefined;

/** The call of a pipeline. */
export type PipelineCall<Options> = <O extends OutputType = 'image'>(
  prompt: Prompt,
  options?: Options & { outputType?: O },
) => Promise<Output<Images<O>>>;

// biome-ignore-start lint/suspicious/noUnsafeDeclarationMerging: an instance is a function, which only an interface can say
export interface Callable<Options> extends PipelineCall<Options> {}

/** Base of a class whose instances are functions, as transformers.js's pipelines are; the class provides the method `run`. */
export abstract class Callable<Options> {
  /** The instance is a function object whose prototype is the class's, and whose call is `run`. */
  constructor() {
    const call: PipelineCall<Options> = (prompt, options) => instance.run(prompt, options);
    const instance: Callable<Options> = Object.setPrototypeOf(call, new.target.prototype);
    // biome-ignore lint/correctness/noConstructorReturn: the returned function is the instance
    return instance;
  }

  abstract run<O extends OutputType = 'image'>(
    prompt: Prompt,
    options?: Options & { outputType?: O },
  ): Promise<Output<Images<O>>>;
}
// biome-ignore-end lint/suspicious/noUnsafeDeclarationMerging: see above
