const { TestEnvironment } = require('jest-environment-node');

// jest runs as many test files at a time as there are processors; native kernels with threads of their own on top of
// that would only wait for one another
process.env.OMP_NUM_THREADS ??= '1';

/**
 * jest runs tests in a vm context with its own typed array classes. Native addons, Buffer and worker threads make
 * arrays of the outer context, for which `instanceof Float32Array` would be false inside, so both share one set.
 */
module.exports = class extends TestEnvironment {
  async setup() {
    await super.setup();
    for (const type of [
      Float32Array,
      Float64Array,
      Int8Array,
      Int16Array,
      Int32Array,
      Uint8Array,
      Uint8ClampedArray,
      Uint16Array,
      Uint32Array,
      BigInt64Array,
      BigUint64Array,
      ArrayBuffer,
      SharedArrayBuffer,
      DataView,
    ]) {
      this.global[type.name] = type;
    }
  }
};
