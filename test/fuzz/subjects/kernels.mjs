// The native engine's functions behind tf.backend().addon, called with what no caller would give them.
import * as tf from '@tensorflow/tfjs-core';
import { BackendError, pickBackend } from '../../../dist/index.js';

export async function setUp() {
  await pickBackend('onednn');
  const { addon } = tf.backend();
  addon.setMemoryLimit(2 ** 30);
  return { addon };
}

const TYPED = [Float32Array, Int32Array, Uint8Array, Float64Array, BigInt64Array];

function argument(random, handles) {
  switch (random.integer(0, 4)) {
    case 0:
      return handles.length > 0 ? random.of(handles) : random.integer(-2, 100);
    case 1:
      return new (random.of(TYPED))(random.integer(0, 16));
    case 2: {
      const { buffer } = new Uint8Array(32);
      const view = new Float32Array(buffer);
      structuredClone(buffer, { transfer: [buffer] });
      return view;
    }
    default:
      return random.value();
  }
}

/** What the addon throws is its own: an Error with a message. */
function call(f) {
  try {
    return f();
  } catch (error) {
    if (!(error instanceof Error) || error.message === '') {
      throw new Error(`the addon throws ${String(error)}`);
    }
    return new BackendError(error.message);
  }
}

export async function trial(random, { addon }) {
  const handles = [];
  for (let i = 0; i < 8; i++) {
    const name = random.of([
      'create',
      'create',
      'run',
      'run',
      'read',
      'readSync',
      'typeOf',
      'dispose',
      'setMemoryLimit',
      'setThreads',
      'memory',
      'describe',
    ]);
    const made =
      name === 'create' && random.chance(0.6)
        ? call(() => addon.create(new Float32Array(6), 0, random.integer(0, 2), [2, 3]))
        : call(() => addon[name](...random.list(random.integer(0, 6), () => argument(random, handles))));
    if (name === 'create' && typeof made === 'number') {
      handles.push(made);
    }
    await Promise.resolve(made).catch(() => {});
  }
  for (const handle of handles) {
    call(() => addon.dispose(handle));
  }
  addon.setMemoryLimit(2 ** 30);
  addon.setThreads(2);
}
