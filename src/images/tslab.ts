/** The part of tslab's `display` (tslab/src/public.ts) that pictures need. */
export interface TslabDisplay {
  png(bytes: Uint8Array): void;
}

/**
 * The display of the tslab kernel that this process runs in, undefined elsewhere. Cells get `require('tslab')` from the
 * kernel, not from any node_modules, so an import from a library would find nothing or another copy that has no
 * connection; the kernel leaves its own require in this global (tslab/src/executor.ts).
 */
export function tslabDisplay(): TslabDisplay | undefined {
  const kernel = (globalThis as { __tslab__?: { require?: (id: string) => { display?: TslabDisplay } } }).__tslab__;
  return kernel?.require?.('tslab').display;
}
