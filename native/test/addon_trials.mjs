/**
 * The surface of an addon (native/napi) called as no caller should: wrong arguments, buffers that are detached or shrunk while a call
 * reads its arguments, tensors disposed in between, sizes beyond all memory, random calls, workers that end during a read. What the addon
 * throws is its own, with a code; a sanitizer sees to the rest. `npm run test:native` runs it under AddressSanitizer and UBSan.
 *
 *     node --expose-gc native/test/addon_trials.mjs build/native/onednn.node [--seed 1] [--rounds 4000]
 */
import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { Random } from '../../test/fuzz/random.mjs';

const { values: options, positionals } = parseArgs({
  args: isMainThread ? process.argv.slice(2) : workerData,
  allowPositionals: true,
  options: { seed: { type: 'string', default: '1' }, rounds: { type: 'string', default: '4000' } },
});
const FLOAT32 = 0;
const INT32 = 3;
const BOOL = 4;
const LIMIT = 2 ** 28;

const module = { exports: {} };
process.dlopen(module, resolve(positionals[0]));
const addon = module.exports;
const CALLS = Object.keys(addon).filter((name) => typeof addon[name] === 'function');
const CODES = ['KERNEL_ERROR', 'OUT_OF_MEMORY'];

/** Thrown by the JavaScript that the addon runs while it reads arguments. */
class Interruption extends Error {}

/** The result of a call, or undefined where the addon refuses it in its own way. */
function attempt(work) {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Interruption)) {
      assert(error instanceof Error && CODES.includes(error.code), `the addon throws ${error?.stack ?? String(error)}`);
      assert.notEqual(error.message, '');
    }
    return undefined;
  }
}

function refuses(pattern, work) {
  assert.throws(work, (error) => CODES.includes(error.code) && pattern.test(error.message), `${work}`);
}

const upload = (values, shape = [values.length], type = FLOAT32) => addon.create(values, type, type, shape);
const numbers = (count) => Float32Array.from({ length: count }, (_, i) => i - 2);
const kernel = (name) => addon.kernels.indexOf(name);

/** Runs a kernel on [handle, shape] pairs; the handles of its outputs. */
function run(name, inputs, attributes) {
  const { exchange } = addon;
  exchange.set([inputs.length, ...inputs.flatMap(([handle, shape]) => [handle, shape.length, ...shape])]);
  const count = addon.run(typeof name === 'string' ? kernel(name) : name, attributes);
  const handles = [];
  for (let i = 0, at = 0; i < count; i++) {
    handles.push(exchange[at]);
    at += 3 + exchange[at + 2];
  }
  return handles;
}

function wrongArguments() {
  const values = numbers(6);
  const handle = upload(values, [2, 3]);
  refuses(/argument 0/, () => addon.readSync());
  refuses(/a number/, () => addon.readSync('1', values));
  refuses(/typed array/, () => addon.readSync(handle, [1, 2, 3, 4, 5, 6]));
  refuses(/typed array/, () => addon.readSync(handle, new DataView(new ArrayBuffer(24))));
  refuses(/does not fit 6 numbers/, () => addon.readSync(handle, new Float32Array(5)));
  refuses(/does not fit 6 numbers/, () => addon.readSync(handle, new Int32Array(6)));
  refuses(/typed array/, () => addon.create(values.buffer, FLOAT32, FLOAT32, [6]));
  refuses(/not a type/, () => addon.create(values, 5, FLOAT32, [6]));
  refuses(/not a type/, () => addon.create(values, FLOAT32, -1, [6]));
  refuses(/not a type/, () => addon.create(values, FLOAT32, 0.5, [6]));
  refuses(/holds no/, () => addon.create(values, FLOAT32, FLOAT32, [-6]));
  refuses(/holds no/, () => addon.create(values, FLOAT32, FLOAT32, [Number.NaN]));
  refuses(/needs 7 numbers/, () => addon.create(values, FLOAT32, FLOAT32, [7]));
  refuses(/needs 6 numbers/, () => addon.create(values, 1, FLOAT32, [6]));
  refuses(/at most 8 dimensions/, () => addon.create(values, FLOAT32, FLOAT32, new Array(9).fill(1)));
  refuses(/permutation/, () => addon.create(values, FLOAT32, FLOAT32, [2, 3], [0, 0]));
  refuses(/permutation/, () => addon.create(values, FLOAT32, FLOAT32, [2, 3], [1]));
  refuses(/permutation/, () => addon.create(values, FLOAT32, FLOAT32, [2, 3], [0, 1.5]));
  refuses(/boolean/, () => addon.create(values, FLOAT32, FLOAT32, [2, 3], undefined, 1));
  for (const bad of [-1, 1e15, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    for (const name of ['typeOf', 'dispose', 'read']) {
      refuses(/handle/, () => addon[name](bad));
    }
  }
  refuses(/threads/, () => addon.setThreads(0));
  refuses(/threads/, () => addon.setThreads(Number.NaN));
  refuses(/memory limit/, () => addon.setMemoryLimit(-1));
  refuses(/no kernel/, () => addon.run(1e5));
  refuses(/unknown type/, () => run('Add', [[handle, [6]]], { axis: () => 1 }));
  refuses(/unknown type/, () => run('Add', [[handle, [6]]], { axis: 1n }));
  const endless = [];
  endless.push(endless, endless);
  refuses(/array of numbers/, () => run('Sum', [[handle, [6]]], { axis: endless }));
  refuses(/at most/, () => run('Sum', [[handle, [6]]], { axis: new Array(2 ** 21).fill(0) }));
  assert.deepEqual(addon.typeOf(handle), FLOAT32);
  addon.dispose(handle);
  refuses(/disposed/, () => addon.dispose(handle));
}

function exchangeArray() {
  const { exchange } = addon;
  const handle = upload(numbers(6), [2, 3]);
  for (const count of [-1, 2 ** 15, 1e300, Number.NaN]) {
    exchange[0] = count;
    refuses(/number of inputs/, () => addon.run(kernel('Add'), {}));
  }
  exchange.fill(1);
  exchange[0] = 2 ** 15 - 1;
  attempt(() => addon.run(kernel('Add'), {}));
  for (const rank of [-1, 9, 1e300, Number.NaN]) {
    exchange.set([1, handle, rank]);
    refuses(/dimensions/, () => addon.run(kernel('Abs'), {}));
  }
  for (const dims of [[6.5], [-6], [2 ** 50], [2 ** 40, 2 ** 40], [5], [1e300]]) {
    attempt(() => run('Abs', [[handle, dims]], {}))?.forEach(addon.dispose);
  }
  refuses(/cannot have shape/, () => run('Abs', [[handle, [5]]], {}));
  // Memory that is given to another thread stays the addon's, too.
  const { exchange: mine } = addon;
  attempt(() => structuredClone(mine.buffer, { transfer: [mine.buffer] }));
  attempt(() => addon.run(kernel('Abs'), {}));
  addon.dispose(handle);
}

/** The list, where reading entry `at` does something first. */
function interrupted(list, at, work) {
  const value = list[at];
  return Object.defineProperty(list, at, {
    get() {
      work();
      return value;
    },
  });
}

const detach = (buffer) => structuredClone(buffer, { transfer: [buffer] });

function buffersThatGo() {
  for (const at of [0, 1]) {
    const values = numbers(2 ** 20);
    attempt(() =>
      addon.create(
        values,
        FLOAT32,
        FLOAT32,
        interrupted([2 ** 10, 2 ** 10], at, () => detach(values.buffer)),
      ),
    );
    assert.equal(values.length, 0);
    const order = numbers(2 ** 20);
    attempt(() =>
      addon.create(
        order,
        FLOAT32,
        1,
        [2 ** 10, 2 ** 10],
        interrupted([1, 0], at, () => detach(order.buffer)),
      ),
    );
  }
  const gone = numbers(6);
  detach(gone.buffer);
  refuses(/needs 6 numbers/, () => addon.create(gone, FLOAT32, FLOAT32, [6]));
  const handle = upload(numbers(6));
  refuses(/does not fit/, () => addon.readSync(handle, gone));
  addon.dispose(handle);
}

function buffersThatShrink() {
  const resizable = () => new Float32Array(new ArrayBuffer(4 * 2 ** 20, { maxByteLength: 4 * 2 ** 20 }));
  const values = resizable();
  attempt(() =>
    addon.create(
      values,
      FLOAT32,
      FLOAT32,
      interrupted([2 ** 10, 2 ** 10], 1, () => values.buffer.resize(16)),
    ),
  );
  const fixed = new Float32Array(new ArrayBuffer(4 * 2 ** 20, { maxByteLength: 4 * 2 ** 20 }), 8, 2 ** 19);
  fixed.buffer.resize(16);
  attempt(() => addon.create(fixed, FLOAT32, FLOAT32, [2 ** 19]));
  const handle = upload(numbers(2 ** 19));
  refuses(/does not fit/, () => addon.readSync(handle, fixed));
  fixed.buffer.resize(4 * 2 ** 20);
  addon.readSync(handle, fixed);
  assert.equal(fixed[2 ** 19 - 1], 2 ** 19 - 3);
  const shared = new Float32Array(new SharedArrayBuffer(4 * 2 ** 19));
  attempt(() => addon.readSync(handle, shared));
  addon.dispose(handle);
}

function tensorsThatGo() {
  const handle = upload(numbers(64), [8, 8]);
  const other = upload(numbers(64), [8, 8]);
  attempt(() =>
    run('Transpose', [[handle, [8, 8]]], {
      get perm() {
        addon.dispose(handle);
        return [1, 0];
      },
    }),
  );
  attempt(() =>
    run(
      'Add',
      [
        [other, [8, 8]],
        [other, [8, 8]],
      ],
      {
        get first() {
          addon.dispose(run('Abs', [[other, [64]]], {})[0]);
          return 1;
        },
        get second() {
          throw new Interruption();
        },
      },
    ),
  );
  addon.dispose(other);
}

async function sizesBeyondMemory() {
  addon.setMemoryLimit(LIMIT);
  const small = upload(numbers(4), [1, 4]);
  const outer = { axis: 0, reps: [2 ** 30, 1] };
  refuses(/needs|memory/, () => run('Tile', [[small, [1, 4]]], outer));
  for (const reps of [
    [2 ** 40, 2 ** 40],
    [2 ** 62, 4],
    [1e15, 1e15],
    [-1, 2],
  ]) {
    attempt(() => run('Tile', [[small, [1, 4]]], { reps }));
    attempt(() => run('Fill', [], { shape: reps, value: 1, dtype: 'float32' }));
  }
  addon.dispose(small);
  await readsThatFail();
  addon.setMemoryLimit(0);
}

/** Bytes of arrays; V8 frees those that it collected on another thread, some time later. */
async function arraysAfterCollection() {
  let bytes = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 10; i++) {
    globalThis.gc();
    await new Promise((done) => setTimeout(done, 20));
    bytes = Math.min(bytes, process.memoryUsage().arrayBuffers);
  }
  return bytes;
}

/** A weight in packed form alone needs memory to be read; what a read made before that fails goes with it. */
async function readsThatFail() {
  const size = 1024;
  const weight = addon.create(new Float32Array(size * size).fill(0.5), FLOAT32, FLOAT32, [size, size], undefined, true);
  const x = upload(new Float32Array(size), [1, size]);
  const shapes = [
    [x, [1, size]],
    [weight, [size, size]],
  ];
  addon.dispose(run('Linear', shapes, { activation: 'linear' })[0]);
  addon.trim();
  addon.setMemoryLimit(addon.memory().bytesInUse + 1024);
  const before = await arraysAfterCollection();
  for (let i = 0; i < 20; i++) {
    attempt(() => addon.read(weight));
  }
  assert((await arraysAfterCollection()) < before + 8 * size * size, 'a read that fails keeps its array');
  addon.setMemoryLimit(LIMIT);
  assert.equal((await addon.read(weight))[7], 0.5);
  addon.dispose(weight);
  addon.dispose(x);
}

async function readsAtOnce() {
  const handle = upload(numbers(2 ** 20));
  const reads = Array.from({ length: 8 }, () => addon.read(handle));
  addon.dispose(handle);
  for (const values of await Promise.all(reads)) {
    assert.equal(values[2 ** 20 - 1], 2 ** 20 - 3);
  }
}

// --- random calls --------------------------------------------------------------------------------------------------

const ARRAYS = [Float32Array, Int32Array, Uint8Array, Float64Array, BigInt64Array, Uint16Array];
const LISTS = [
  'perm',
  'axis',
  'begin',
  'size',
  'strides',
  'pad',
  'paddings',
  'reps',
  'shape',
  'dilations',
  'inputShape',
  'filterShape',
];
const NUMBERS = [
  'axis',
  'groups',
  'epsilon',
  'upsample',
  'depth',
  'k',
  'heads',
  'scale',
  'dim',
  'value',
  'numSegments',
  'maxPeriod',
];
const WORDS = ['activation', 'dtype', 'physical', 'mode'];
const TEXTS = ['linear', 'silu', 'geglu', 'float32', 'bfloat16', 'bool', 'reflect', 'nonsense'];

function randomAttributes(random) {
  const attributes = {};
  const some = (names, make) => {
    for (const name of names) {
      if (random.chance(0.5)) {
        attributes[name] = random.chance(0.05) ? random.value() : make();
      }
    }
  };
  some(LISTS, () => random.list(random.integer(0, 6), () => random.integer(-1, 4)));
  some(NUMBERS, () => (random.chance(0.8) ? random.integer(0, 5) : random.number()));
  some(WORDS, () => random.of(TEXTS));
  return attributes;
}

function randomTensor(random, held) {
  const shape = random.list(random.integer(0, 5), () => random.integer(0, 5));
  const count = shape.reduce((product, dim) => product * dim, 1);
  const type = random.integer(0, 4);
  const storage = type === INT32 ? INT32 : type === BOOL ? BOOL : FLOAT32;
  const values =
    storage === FLOAT32 ? numbers(count) : storage === INT32 ? new Int32Array(count) : new Uint8Array(count);
  const order = random.chance(0.2) ? shape.map((_, axis) => shape.length - 1 - axis) : undefined;
  const handle = addon.create(values, storage, type, shape, order, random.chance(0.2));
  held.push([handle, order ? order.map((axis) => shape[axis]) : shape]);
}

function randomArgument(random, held) {
  switch (random.integer(0, 4)) {
    case 0:
      return held.length > 0 ? random.of(held)[0] : random.number();
    case 1:
      return new (random.of(ARRAYS))(random.integer(0, 40));
    case 2: {
      const view = new Float32Array(8);
      detach(view.buffer);
      return view;
    }
    default:
      return random.value();
  }
}

async function randomCall(random, held) {
  if (held.length < 4 || random.chance(0.1)) {
    randomTensor(random, held);
  } else if (random.chance(0.7)) {
    const inputs = random.list(random.integer(0, 5), () => (random.chance(0.1) ? [-1, []] : random.of(held)));
    const made =
      attempt(() => run(random.integer(0, addon.kernels.length - 1), inputs, randomAttributes(random))) ?? [];
    for (const handle of made) {
      await attempt(() => addon.read(handle));
      addon.dispose(handle);
    }
  } else {
    const name = random.of(CALLS);
    const made = attempt(() => addon[name](...random.list(random.integer(0, 6), () => randomArgument(random, held))));
    await made;
    if (name === 'create' && made !== undefined) {
      addon.dispose(made);
    }
    addon.setMemoryLimit(LIMIT);
    addon.setThreads(2);
  }
}

async function randomCalls(seed, rounds) {
  const random = new Random(seed);
  const held = [];
  for (let round = 0; round < rounds; round++) {
    await randomCall(random, held);
    if (held.length > 12) {
      const [[handle]] = held.splice(random.integer(0, held.length - 1), 1);
      attempt(() => addon.dispose(handle));
    }
  }
  for (const [handle] of held) {
    attempt(() => addon.dispose(handle));
  }
  addon.setMemoryLimit(0);
}

/** Environments that end with tensors and a read under way. */
async function workersThatEnd(count) {
  for (let i = 0; i < count; i++) {
    const worker = new Worker(new URL(import.meta.url), { workerData: positionals });
    await new Promise((done, failed) => {
      worker.once('message', () => worker.terminate().then(done, failed));
      worker.once('error', failed);
    });
  }
}

if (isMainThread) {
  const { bytesInUse } = addon.memory();
  wrongArguments();
  buffersThatGo();
  buffersThatShrink();
  tensorsThatGo();
  await sizesBeyondMemory();
  await readsAtOnce();
  await randomCalls(Number(options.seed), Number(options.rounds));
  await workersThatEnd(3);
  exchangeArray();
  assert.equal(addon.memory().bytesInUse, bytesInUse, 'native memory is left over');
  console.log(`addon: ${options.rounds} random calls from seed ${options.seed}, ${addon.kernels.length} kernels`);
} else {
  const handle = upload(new Float32Array(2 ** 22));
  addon.read(handle);
  parentPort.postMessage('reading');
  setInterval(() => {}, 1000);
}
