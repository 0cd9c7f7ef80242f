/** The first `count` primes. */
function primes(count: number): number[] {
  const found: number[] = [];
  for (let n = 2; found.length < count; n++) {
    if (found.every((prime) => n % prime !== 0)) {
      found.push(n);
    }
  }
  return found;
}

/** The first 32 bits of a number's fraction. */
const fraction = (x: number): number => Math.floor((x % 1) * 2 ** 32);

const K = Uint32Array.from(primes(64), (prime) => fraction(Math.cbrt(prime)));
const BLOCK = 64;

/** SHA-256 (FIPS 180-4) of bytes that come piece by piece; the browser's own wants all of them at once. */
export class Sha256 {
  private readonly state = Uint32Array.from(primes(8), (prime) => fraction(Math.sqrt(prime)));
  private readonly words = new Uint32Array(64);
  private readonly rest = new Uint8Array(BLOCK);
  private length = 0;

  update(bytes: Uint8Array): this {
    const filled = this.length % BLOCK;
    this.length += bytes.length;
    let at = 0;
    if (filled > 0) {
      at = Math.min(BLOCK - filled, bytes.length);
      this.rest.set(bytes.subarray(0, at), filled);
      if (filled + at < BLOCK) {
        return this;
      }
      this.mix(this.rest, 0);
    }
    for (; at + BLOCK <= bytes.length; at += BLOCK) {
      this.mix(bytes, at);
    }
    this.rest.set(bytes.subarray(at));
    return this;
  }

  /** The hash in hexadecimal; nothing may be added afterwards. */
  digest(): string {
    const bits = this.length * 8;
    // a bit, zeros, and the length in 64 bits fill the last block (5.1.1)
    const end = new Uint8Array(9 + ((2 * BLOCK - 9 - (this.length % BLOCK)) % BLOCK));
    const view = new DataView(end.buffer);
    end[0] = 0x80;
    view.setUint32(end.length - 8, Math.floor(bits / 2 ** 32));
    view.setUint32(end.length - 4, bits % 2 ** 32);
    this.update(end);
    return Array.from(this.state, (word) => word.toString(16).padStart(8, '0')).join('');
  }

  /** The 64 words of a block's schedule (6.2.2, step 1). */
  private schedule(bytes: Uint8Array, at: number): Uint32Array {
    const w = this.words;
    for (let i = 0; i < 16; i++) {
      const from = at + 4 * i;
      w[i] = (bytes[from]! << 24) | (bytes[from + 1]! << 16) | (bytes[from + 2]! << 8) | bytes[from + 3]!;
    }
    for (let i = 16; i < 64; i++) {
      const [x, y] = [w[i - 15]!, w[i - 2]!];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = w[i - 16]! + s0 + w[i - 7]! + s1;
    }
    return w;
  }

  /** Works a block into the state (6.2.2, steps 2 to 4). */
  private mix(bytes: Uint8Array, at: number): void {
    const w = this.schedule(bytes, at);
    const { state } = this;
    let [a, b, c, d] = [state[0]!, state[1]!, state[2]!, state[3]!];
    let [e, f, g, h] = [state[4]!, state[5]!, state[6]!, state[7]!];
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[i]! + w[i]!) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    state[0]! += a;
    state[1]! += b;
    state[2]! += c;
    state[3]! += d;
    state[4]! += e;
    state[5]! += f;
    state[6]! += g;
    state[7]! += h;
  }
}
