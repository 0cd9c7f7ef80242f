// Seconds per kernel and shape of one piece of work, for backends whose kernels are done when they return.
import * as tf from '@tensorflow/tfjs-core';

/** Runs `f` and gives [{kernel, shapes, calls, seconds}], longest first, with what lies between kernels as '(other)'. */
export async function profileKernels(f) {
  const engine = tf.engine();
  const original = engine.runKernel;
  const rows = new Map();
  let depth = 0;
  engine.runKernel = function (kernel, inputs, attrs) {
    const begin = performance.now();
    depth++;
    try {
      return original.call(this, kernel, inputs, attrs);
    } finally {
      depth--;
      if (depth === 0) {
        const shapes = Object.values(inputs)
          .flat()
          .filter((x) => x?.shape)
          .map((x) => `[${x.shape}]`)
          .join(' ');
        const key = `${kernel} ${shapes}`;
        const row = rows.get(key) ?? { kernel, shapes, calls: 0, seconds: 0 };
        row.calls++;
        row.seconds += (performance.now() - begin) / 1000;
        rows.set(key, row);
      }
    }
  };
  const begin = performance.now();
  try {
    await f();
  } finally {
    engine.runKernel = original;
  }
  const total = (performance.now() - begin) / 1000;
  const measured = [...rows.values()].sort((a, b) => b.seconds - a.seconds);
  const inside = measured.reduce((sum, row) => sum + row.seconds, 0);
  return { total, rows: [...measured, { kernel: '(other)', shapes: '', calls: 0, seconds: total - inside }] };
}

/** Prints the profile: kernels summed over shapes, then the longest kernels by shape. */
export function printProfile({ total, rows }, longest = 25) {
  const line = (name, calls, seconds) =>
    console.log(
      `${(1000 * seconds).toFixed(1).padStart(10)} ms ${((100 * seconds) / total).toFixed(1).padStart(5)} % ${String(calls).padStart(5)} x ${name}`,
    );
  const byKernel = new Map();
  for (const { kernel, calls, seconds } of rows) {
    const sum = byKernel.get(kernel) ?? { calls: 0, seconds: 0 };
    byKernel.set(kernel, { calls: sum.calls + calls, seconds: sum.seconds + seconds });
  }
  for (const [kernel, { calls, seconds }] of [...byKernel].sort((a, b) => b[1].seconds - a[1].seconds)) {
    line(kernel, calls, seconds);
  }
  console.log('');
  for (const { kernel, shapes, calls, seconds } of rows.slice(0, longest)) {
    line(`${kernel} ${shapes}`, calls, seconds);
  }
}
