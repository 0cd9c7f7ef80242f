// Runs the trials of one subject: child.mjs SUBJECT FIRST_SEED MILLISECONDS MAX_TRIALS; see run.mjs.
import * as tf from '@tensorflow/tfjs-core';
import { DiffusersError } from '../../dist/errors.js';
import { setWarningHandler } from '../../dist/index.js';
import { Random } from './random.mjs';

/** The longest message that still helps. */
const MAX_MESSAGE = 4000;

const [subject, first, milliseconds, maxTrials] = process.argv.slice(2);
const { setUp, trial } = await import(`./subjects/${subject}.mjs`);
tf.env().set('PROD', true);
setWarningHandler(() => {});
const context = await setUp();
const end = performance.now() + Number(milliseconds);

/** The message and the first places of a stack. */
const describe = (error) =>
  String(error?.stack ?? error)
    .split('\n')
    .slice(0, 4)
    .join(' <')
    .slice(0, 500);

/** What is wrong with the outcome of one trial; undefined when nothing is. */
async function outcome(seed) {
  const before = tf.memory().numTensors;
  try {
    await trial(new Random(seed), context);
  } catch (error) {
    if (!(error instanceof DiffusersError)) {
      return `untyped ${describe(error)}`;
    }
    if (error.message.length > MAX_MESSAGE) {
      return `a message of ${error.message.length} characters: ${error.message.slice(0, 200)}`;
    }
  }
  const leaked = tf.memory().numTensors - before;
  return leaked === 0 ? undefined : `${leaked} tensors more than before`;
}

process.on('unhandledRejection', (error) => {
  process.send({ failure: `unhandled rejection ${describe(error)}` });
});
const begin = Number(first);
for (let seed = begin; performance.now() < end && seed - begin < Number(maxTrials); seed++) {
  process.send({ seed });
  const failure = await outcome(seed);
  if (failure) {
    process.send({ seed, failure });
  }
}
await context?.tearDown?.();
process.send({ done: true }, () => process.exit(0));
