import type { BackendName } from '../../src/backends/index.js';

/** The backend that tests of models run on: wasm computes float32 in every installation. */
export const MODEL_BACKEND = (process.env.TFJS_DIFFUSERS_MODEL_BACKEND ?? 'wasm') as BackendName;
