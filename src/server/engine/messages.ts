import type { ErrorReport } from '../errors.js';
import type { DrawRequest } from '../request/draw_request.js';
import type { Capabilities } from './capabilities.js';
import type { LoadSettings } from './loaded_model.js';

/** A drawn picture as a file. */
export interface Picture {
  bytes: Uint8Array;
  format: 'png' | 'jpeg' | 'webp';
  width: number;
  height: number;
  seed: number;
  /** Prompt and settings as the web UI writes them. */
  parameters: string;
}

/** How far a job is. */
export interface DrawProgress {
  /** Picture that is drawn, from 0, and pictures in all. */
  picture: number;
  pictures: number;
  /** Steps done of this picture, and in all. */
  step: number;
  steps: number;
  /** Seconds that the last step took. */
  seconds: number;
}

/** A picture on the way. */
export interface Preview {
  picture: number;
  step: number;
  /** From 0, of the previews of this picture. */
  index: number;
  format: 'png' | 'jpeg' | 'webp';
  bytes: Uint8Array;
}

/**
 * What a job can be asked for while it is drawn: a picture on the way, or an end where it stands, of the picture ('skip') or of
 * the job ('stop'); what is there so far is then the result.
 */
export type Ask = 'preview' | 'skip' | 'stop';

/** What the parent process says. */
export type ToEngine =
  | { type: 'load'; model: string; name: string; settings: LoadSettings; loras: Readonly<Record<string, string>> }
  | { type: 'draw'; id: number; request: DrawRequest }
  | { type: 'cancel'; id: number }
  | { type: 'ask'; id: number; what: Ask };

/** What the engine's process says; `bytes` is the memory that it takes. */
export type FromEngine =
  | { type: 'loaded'; capabilities: Capabilities; bytes: number }
  | { type: 'load-failed'; error: ErrorReport }
  | { type: 'progress'; id: number; progress: DrawProgress }
  | { type: 'preview'; id: number; preview: Preview }
  | { type: 'done'; id: number; pictures: Picture[]; bytes: number }
  | { type: 'failed'; id: number; error: ErrorReport; bytes: number };
