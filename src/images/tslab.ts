/** The part of tslab's `display` (tslab/src/public.ts) that pictures need. */
export interface TslabDisplay {
  png(bytes: Uint8Array): void;
}

/** What a cell's `require('tslab')` has. */
interface Tslab {
  display?: TslabDisplay;
  /** A display whose next picture takes the place of the one before. */
  newDisplay?(): TslabDisplay;
}

/**
 * The tslab kernel that this process runs in, undefined elsewhere. Cells get `require('tslab')` from the
 * kernel, not from any node_modules, so an import from a library would find nothing or another copy that has no
 * connection; the kernel leaves its own require in this global (tslab/src/executor.ts).
 */
function tslab(): Tslab | undefined {
  const kernel = (globalThis as { __tslab__?: { require?: (id: string) => Tslab } }).__tslab__;
  return kernel?.require?.('tslab');
}

/** The display below the running cell; undefined outside tslab. */
export function tslabDisplay(): TslabDisplay | undefined {
  return tslab()?.display;
}

/** A new display, where each picture takes the place of the one before; undefined outside tslab. */
export function newTslabDisplay(): TslabDisplay | undefined {
  return tslab()?.newDisplay?.();
}
