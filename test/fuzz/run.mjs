// npm run fuzz -- [--minutes 3] [--seed N] [--only files,configs] [--trials N]
//
// Hostile files, configurations, options, prompts, metadata, kernel calls and answers of a hub. A trial may succeed or end
// in one of the library's own errors; a crash, a hang, another error, a leaked tensor is a failure. Each line of failure
// names the subject and the seed that repeat it: npm run fuzz -- --only SUBJECT --seed N --trials 1.
import { fork } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

/** Without a sign of life for so long, a trial hangs. */
const HANG_SECONDS = 60;

const string = (value) => ({ type: 'string', default: value });
const { values } = parseArgs({
  options: {
    minutes: string('3'),
    seed: string(String(Math.floor(Math.random() * 2 ** 31))),
    only: string(''),
    trials: string('0'),
  },
});
const subjects = readdirSync(new URL('./subjects/', import.meta.url))
  .map((file) => file.replace('.mjs', ''))
  .filter((name) => values.only === '' || values.only.split(',').includes(name));
const seed = Number(values.seed);
const share = (Number(values.minutes) * 60_000) / subjects.length;
const maxTrials = Number(values.trials) || Number.POSITIVE_INFINITY;
console.log(`seed ${seed}, ${values.minutes} minutes: ${subjects.join(', ')}`);

/** Runs trials of a subject from `first` on in a child until its time is over; gives what happened. */
function runChild(subject, first, milliseconds, failures) {
  return new Promise((resolve) => {
    const child = fork(
      fileURLToPath(new URL('./child.mjs', import.meta.url)),
      [subject, first, milliseconds, maxTrials].map(String),
      {
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
        execArgv: ['--max-old-space-size=4096'],
      },
    );
    let at = first;
    let done = false;
    let hung = false;
    let timer;
    const watch = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        hung = true;
        child.kill('SIGKILL');
      }, HANG_SECONDS * 1000);
    };
    watch();
    child.on('message', (message) => {
      watch();
      at = message.seed ?? at;
      if (message.failure) {
        failures.push(`${subject} --seed ${message.seed}: ${message.failure}`);
      }
      done ||= message.done === true;
    });
    child.on('exit', (code, signal) => {
      clearTimeout(timer);
      if (!done) {
        failures.push(
          `${subject} --seed ${at}: ${hung ? `hangs (${HANG_SECONDS} s)` : `the process ends with ${signal ?? code}`}`,
        );
      }
      resolve({ next: at + 1, done });
    });
  });
}

const failures = [];
let trials = 0;
for (const subject of subjects) {
  const end = performance.now() + share;
  let next = seed;
  for (let done = false; !done && performance.now() < end && next - seed < maxTrials; ) {
    ({ next, done } = await runChild(subject, next, Math.round(end - performance.now()), failures));
  }
  console.log(`${subject}: ${next - seed} trials`);
  trials += next - seed;
}
for (const failure of failures.slice(0, 50)) {
  console.log(`FAIL ${failure}`);
}
console.log(`${trials - failures.length} passed, ${failures.length} failed`);
process.exit(failures.length === 0 && trials > 0 ? 0 : 1);
