import { InvalidArgumentError } from '../errors.js';
import { MersenneTwister } from './mersenne_twister.js';
import { logFloat32, sinCosFloat32 } from './vector_math.js';

/** The seed of a `torch.Generator()` that was given none (c10::detail::default_rng_seed_val). */
const DEFAULT_SEED = 67280421310721n;
/** Bytes of `torch.Generator("cpu").get_state()`: its legacy struct of 5048 bytes and a cached float normal. */
const STATE_BYTES = 5056;
const STATE_WORDS_OFFSET = 24;
const NORMAL_OFFSET = STATE_WORDS_OFFSET + 624 * 8;

/**
 * Random numbers of `torch.Generator("cpu")`: the same seed gives the numbers that PyTorch gives, draw after draw.
 *
 * Numbers are equal bit for bit to PyTorch's on x86-64 processors with AVX2. Where PyTorch takes another path (other
 * processors), its own normals differ in the last bits from those and therefore from these.
 */
export class TorchGenerator {
  private readonly engine: MersenneTwister;
  private seedValue: bigint;
  /** Second number of the last Box-Muller pair of a draw of fewer than 16 normals; torch carries it to the next one. */
  private cachedNormal: number | null = null;

  /**
   * @param seed integer from -2^63 to 2^64 - 1 (a bigint above 2^53); torch's default seed when absent.
   * @throws InvalidArgumentError for anything else.
   */
  constructor(seed: number | bigint = DEFAULT_SEED) {
    this.seedValue = checkSeed(seed);
    this.engine = new MersenneTwister(low32(this.seedValue));
  }

  /** Starts again from `seed`, as `torch.Generator.manual_seed`. Returns this generator. */
  manualSeed(seed: number | bigint): this {
    this.seedValue = checkSeed(seed);
    this.engine.seed(low32(this.seedValue));
    this.cachedNormal = null;
    return this;
  }

  /** The seed that this generator started from (negative seeds wrap around at 2^64, as in torch). */
  initialSeed(): bigint {
    return this.seedValue;
  }

  /** Starts again from a seed that cannot be foreseen and returns it, as `torch.Generator.seed`. */
  seed(): bigint {
    const [high, low] = globalThis.crypto.getRandomValues(new Uint32Array(2));
    const seed = (BigInt(high! & 0x1fffff) << 32n) | BigInt(low!);
    this.manualSeed(seed);
    return seed;
  }

  /** `torch.rand`: float32 numbers from [0, 1), of 24 random bits each. */
  rand(shape: number | readonly number[]): Float32Array {
    const out = new Float32Array(sizeOf(shape, 'rand'));
    this.fillUniform(out, 0, out.length);
    return out;
  }

  /**
   * `torch.randn`: standard normal numbers in row-major order of `shape`, which is torch's (N,C,H,W for pictures).
   * As in torch, draws of fewer than 16 numbers and longer ones use different algorithms, and a longer one whose
   * size is not a multiple of 16 draws its last 16 numbers again.
   */
  randn(shape: number | readonly number[]): Float32Array {
    const out = new Float32Array(sizeOf(shape, 'randn'));
    const size = out.length;
    if (size < 16) {
      for (let i = 0; i < size; i++) {
        out[i] = this.nextNormal();
      }
      return out;
    }
    this.fillUniform(out, 0, size);
    for (let i = 0; i + 16 <= size; i += 16) {
      boxMuller16(out, i);
    }
    if (size % 16 !== 0) {
      this.fillUniform(out, size - 16, size);
      boxMuller16(out, size - 16);
    }
    return out;
  }

  /**
   * `torch.randint(low, high, shape)`: integers from [low, high), at most 32 bits wide.
   * @throws InvalidArgumentError when a bound is no integer of 32 bits or `high <= low`.
   */
  randint(low: number, high: number, shape: number | readonly number[]): Int32Array {
    if (!Number.isInteger(low) || !Number.isInteger(high) || low < -(2 ** 31) || high > 2 ** 31 || high <= low) {
      throw new InvalidArgumentError(
        `[randint] expects integers low < high between -2^31 and 2^31, got low ${low} and high ${high}`,
      );
    }
    const out = new Int32Array(sizeOf(shape, 'randint'));
    const range = high - low;
    for (let i = 0; i < out.length; i++) {
      out[i] = low + (range < 2 ** 28 ? this.engine.random() % range : Number(this.random64() % BigInt(range)));
    }
    return out;
  }

  /** The whole state, in the bytes of `torch.Generator("cpu").get_state()`. */
  getState(): Uint8Array {
    const bytes = new Uint8Array(STATE_BYTES);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, this.seedValue, true);
    view.setInt32(8, this.engine.left, true);
    view.setInt32(12, 1, true);
    view.setBigUint64(16, BigInt(this.engine.next), true);
    this.engine.state.forEach((word, i) => {
      view.setBigUint64(STATE_WORDS_OFFSET + 8 * i, BigInt(word), true);
    });
    if (this.cachedNormal !== null) {
      view.setFloat64(NORMAL_OFFSET + 8, this.cachedNormal, true);
      view.setInt32(NORMAL_OFFSET + 24, 1, true);
    }
    return bytes;
  }

  /**
   * Continues from a state of `getState` or of `torch.Generator("cpu").get_state()`. Returns this generator.
   * @throws InvalidArgumentError when the bytes are no such state; the generator is then unchanged.
   */
  setState(bytes: Uint8Array): this {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const left = bytes.length === STATE_BYTES ? view.getInt32(8, true) : 0;
    const next = bytes.length === STATE_BYTES ? view.getBigUint64(16, true) : 0n;
    if (left < 1 || left > 624 || next > 624n) {
      throw new InvalidArgumentError(
        `[setState] expects the ${STATE_BYTES} bytes of a generator's getState(), got ${bytes.length} bytes` +
          `${bytes.length === STATE_BYTES ? ' that hold no Mersenne Twister state' : ''}`,
      );
    }
    this.seedValue = view.getBigUint64(0, true);
    this.engine.left = left;
    this.engine.next = Number(next);
    for (let i = 0; i < 624; i++) {
      this.engine.state[i] = Number(view.getBigUint64(STATE_WORDS_OFFSET + 8 * i, true) & 0xffffffffn);
    }
    this.cachedNormal = view.getInt32(NORMAL_OFFSET + 24, true) ? view.getFloat64(NORMAL_OFFSET + 8, true) : null;
    return this;
  }

  private random64(): bigint {
    const high = this.engine.random();
    return (BigInt(high) << 32n) | BigInt(this.engine.random());
  }

  private nextUniform53(): number {
    const high = this.engine.random() & 0x1fffff;
    return (high * 2 ** 32 + this.engine.random()) * 2 ** -53;
  }

  private nextNormal(): number {
    if (this.cachedNormal !== null) {
      const cached = this.cachedNormal;
      this.cachedNormal = null;
      return cached;
    }
    const u1 = this.nextUniform53();
    const u2 = this.nextUniform53();
    const radius = Math.sqrt(-2 * Math.log1p(-u2));
    const theta = 2 * Math.PI * u1;
    this.cachedNormal = radius * Math.sin(theta);
    return radius * Math.cos(theta);
  }

  private fillUniform(out: Float32Array, begin: number, end: number): void {
    for (let i = begin; i < end; i++) {
      out[i] = (this.engine.random() & 0xffffff) * 2 ** -24;
    }
  }
}

const TWO_PI = Math.fround(2 * Math.PI);
const sinCos = new Float32Array(2);

/** Box-Muller in place on 8 + 8 uniform numbers, in float32 (NormalFill16 of ATen/native/cpu/DistributionTemplates.h). */
function boxMuller16(data: Float32Array, offset: number): void {
  const f = Math.fround;
  for (let i = offset; i < offset + 8; i++) {
    const radius = f(Math.sqrt(-2 * logFloat32(f(1 - data[i]!))));
    sinCosFloat32(f(TWO_PI * data[i + 8]!), sinCos);
    data[i] = radius * sinCos[1]!;
    data[i + 8] = radius * sinCos[0]!;
  }
}

function checkSeed(seed: number | bigint): bigint {
  const valid = typeof seed === 'bigint' || Number.isSafeInteger(seed);
  const value = valid ? BigInt(seed) : 0n;
  if (!valid || value < -(2n ** 63n) || value >= 2n ** 64n) {
    throw new InvalidArgumentError(
      `[TorchGenerator] expects an integer seed from -2^63 to 2^64 - 1 (a bigint beyond 2^53), got ${seed}`,
    );
  }
  return BigInt.asUintN(64, value);
}

function low32(seed: bigint): number {
  return Number(seed & 0xffffffffn);
}

function sizeOf(shape: number | readonly number[], method: string): number {
  const dimensions = typeof shape === 'number' ? [shape] : shape;
  if (!dimensions.every((d) => Number.isSafeInteger(d) && d >= 0)) {
    throw new InvalidArgumentError(`[${method}] expects a shape of non-negative integers, got [${dimensions}]`);
  }
  return dimensions.reduce((a, b) => a * b, 1);
}
