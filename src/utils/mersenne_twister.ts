const N = 624;
const M = 397;
const MATRIX_A = 0x9908b0df;
const UPPER_MASK = 0x80000000;
const LOWER_MASK = 0x7fffffff;

/**
 * The 32-bit Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998), laid out as torch's `mt19937_engine`
 * (ATen/core/MT19937RNGEngine.h), so that its state can be exchanged with `torch.Generator`.
 */
export class MersenneTwister {
  readonly state = new Uint32Array(N);
  /** Numbers left before the state is renewed; 1 straight after seeding. */
  left = 1;
  /** Index of the next number in `state`. */
  next = 0;

  constructor(seed: number) {
    this.seed(seed);
  }

  /** Starts again from the low 32 bits of `seed`. */
  seed(seed: number): void {
    const state = this.state;
    state[0] = seed >>> 0;
    for (let i = 1; i < N; i++) {
      const previous = state[i - 1]! ^ (state[i - 1]! >>> 30);
      state[i] = Math.imul(1812433253, previous) + i;
    }
    this.left = 1;
    this.next = 0;
  }

  /** The next unsigned 32-bit number. */
  random(): number {
    if (--this.left === 0) {
      this.renew();
    }
    let y = this.state[this.next++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  }

  private renew(): void {
    const state = this.state;
    for (let i = 0; i < N; i++) {
      const mixed = (state[i]! & UPPER_MASK) | (state[(i + 1) % N]! & LOWER_MASK);
      state[i] = state[(i + M) % N]! ^ (mixed >>> 1) ^ (mixed & 1 ? MATRIX_A : 0);
    }
    this.left = N;
    this.next = 0;
  }
}
