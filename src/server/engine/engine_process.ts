/** The process that draws with one model. It lives as long as the one that started it, and answers its messages. */
import * as tf from '@tensorflow/tfjs-core';
import { setWarningHandler } from '../../utils/logging.js';
import { reportOf } from '../errors.js';
import { capabilitiesOf } from './capabilities.js';
import { draw } from './draw.js';
import { type LoadedModel, loadModel } from './loaded_model.js';
import type { Ask, FromEngine, ToEngine } from './messages.js';

type Draw = Extract<ToEngine, { type: 'draw' }>;
type Load = Extract<ToEngine, { type: 'load' }>;

/** What becomes of a job that is drawn or waits for it. */
interface Running {
  controller: AbortController;
  asked: Set<Ask>;
}

const running = new Map<number, Running>();
let model: LoadedModel | undefined;
/** One job after another. */
let last: Promise<void> = Promise.resolve();

const say = (message: FromEngine): void => {
  process.send?.(message);
};
const bytes = () => process.memoryUsage.rss();

async function load({ model: source, settings, loras }: Load): Promise<void> {
  try {
    model = await loadModel(source, settings, loras);
    say({ type: 'loaded', capabilities: capabilitiesOf(model), bytes: bytes() });
  } catch (error) {
    say({ type: 'load-failed', error: reportOf(error) });
  }
}

async function drawJob({ id, request }: Draw, state: Running): Promise<void> {
  const { signal } = state.controller;
  try {
    const pictures = await draw(model!, request, {
      signal,
      asked: state.asked,
      onProgress: (progress) => say({ type: 'progress', id, progress }),
      onPreview: (preview) => say({ type: 'preview', id, preview }),
    });
    say({ type: 'done', id, pictures, bytes: bytes() });
  } catch (error) {
    say({ type: 'failed', id, error: reportOf(error), bytes: bytes() });
  } finally {
    running.delete(id);
  }
}

function begin(message: Draw): void {
  const state: Running = { controller: new AbortController(), asked: new Set() };
  running.set(message.id, state);
  last = last.then(() => drawJob(message, state));
}

function take(message: ToEngine): void {
  switch (message.type) {
    case 'load':
      void load(message);
      break;
    case 'draw':
      begin(message);
      break;
    case 'cancel':
      running.get(message.id)?.controller.abort();
      break;
    case 'ask':
      running.get(message.id)?.asked.add(message.what);
  }
}

tf.env().set('PROD', true);
setWarningHandler((message) => process.stderr.write(`warning: ${message}\n`));
process.on('message', take);
// whoever asked is gone
process.on('disconnect', () => process.exit(0));
// Ctrl-C goes to the whole group; the parent decides
process.on('SIGINT', () => undefined);
