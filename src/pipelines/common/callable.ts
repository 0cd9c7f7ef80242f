/** Function objects whose prototype is the class and whose call is the method `run`. */
class CallableInstance {
  constructor() {
    const call = (...args: unknown[]) => (call as unknown as { run(...args: unknown[]): unknown }).run(...args);
    // biome-ignore lint/correctness/noConstructorReturn: the returned function is the instance
    return Object.setPrototypeOf(call, new.target.prototype);
  }
}

/**
 * Base of a class whose instances are functions of type F, as transformers.js's pipelines are; the class provides a
 * method `run` of that type.
 */
export const Callable = CallableInstance as unknown as abstract new <F extends (...args: never[]) => unknown>() => F;
