import { TorchGenerator } from '../../utils/torch_generator.js';

/** Words of a seed sequence's pool in torchsde's trees. */
const POOL_SIZE = 24;

/**
 * Increments of a Brownian motion between any two times, always the same for a seed: torchsde's `BrownianInterval` with
 * `halfway_tree`, `tol=1e-6`, as the noise samplers of k-diffusion and diffusers use it. The interval is halved until the
 * times asked for, rounded to six decimals, are ends of pieces; each piece's increment is drawn given its parent's
 * (Levy's construction), with a seed that is derived from its place in the tree.
 */
export class BrownianTree {
  private readonly start: number;
  private readonly end: number;
  private readonly total: Float32Array;

  /**
   * @param start before `end`; times outside are moved to the nearer end.
   * @param size numbers in an increment, which stand in torch's order.
   */
  constructor(
    start: number,
    end: number,
    private readonly size: number,
    private readonly seed: bigint,
  ) {
    this.start = roundTime(start);
    this.end = roundTime(end);
    const [draw] = seedSequence(wordsOf(seed), 1);
    const deviation = Math.sqrt(end - start);
    this.total = this.randn(draw!).map((x) => x * deviation);
  }

  /** W(to) - W(from), of variance to - from. */
  increment(from: number, to: number): Float32Array {
    const clamp = (time: number): number => roundTime(Math.min(Math.max(time, this.start), this.end));
    const sum = new Float32Array(this.size);
    if (clamp(from) < clamp(to)) {
      const root = { start: this.start, end: this.end, key: 0, depth: 0, increment: this.total };
      this.collect(root, clamp(from), clamp(to), sum);
    }
    return sum;
  }

  /** Adds the increments of the pieces of `node` that make up [from, to]. */
  private collect(node: Piece, from: number, to: number, sum: Float32Array): void {
    if (from === node.start && to === node.end) {
      for (let i = 0; i < sum.length; i++) {
        sum[i]! += node.increment[i]!;
      }
      return;
    }
    const [left, right] = this.halves(node);
    if (from < left.end) {
      this.collect(left, from, Math.min(to, left.end), sum);
    }
    if (to > left.end) {
      this.collect(right, Math.max(from, left.end), to, sum);
    }
  }

  /** W in the middle, given both ends: the mean in proportion, and noise of variance (m - s)(e - m) / (e - s). */
  private halves({ start, end, key, depth, increment }: Piece): [left: Piece, right: Piece] {
    const middle = roundTime(0.5 * (end + start));
    const [draw] = seedSequence([...wordsOf(this.seed), key, depth], 1, wordsOf(this.seed).length);
    const noise = this.randn(draw!);
    const reciprocal = 1 / (end - start);
    const [before, after] = [middle - start, end - middle];
    const deviation = Math.sqrt(before * after * reciprocal);
    const first = increment.map((w, i) => w * before * reciprocal + deviation * noise[i]!);
    const second = increment.map((w, i) => w - first[i]!);
    return [
      { start, end: middle, key: 2 * key, depth: depth + 1, increment: first },
      { start: middle, end, key: 2 * key + 1, depth: depth + 1, increment: second },
    ];
  }

  private randn(seed: number): Float32Array {
    return new TorchGenerator(seed).randn(this.size);
  }
}

interface Piece {
  start: number;
  end: number;
  /** Number of the piece in its row, and the row's number. */
  key: number;
  depth: number;
  increment: Float32Array;
}

/** Python's `round(x, 6)`: `toFixed` rounds exactly, but takes the larger of two that are equally near, not the even one. */
function roundTime(x: number): number {
  const isTie = Math.abs(x * 128) % 2 === 1;
  if (!isTie) {
    return Number(x.toFixed(6));
  }
  const below = Math.floor(x * 1e6);
  return (below % 2 === 0 ? below : below + 1) / 1e6;
}

/** A seed in words of 32 bits, the lowest first. */
function wordsOf(seed: bigint): number[] {
  const words = [Number(seed & 0xffffffffn)];
  for (let rest = seed >> 32n; rest > 0n; rest >>= 32n) {
    words.push(Number(rest & 0xffffffffn));
  }
  return words;
}

/**
 * `np.random.SeedSequence(...).generate_state(count)` (M. O'Neill's seed_seq_fe, of any pool size).
 * @param entropy the seed's words, and those of the spawn key.
 * @param own how many of them are the seed's: those of a spawn key come after a whole pool.
 */
export function seedSequence(entropy: readonly number[], count: number, own = entropy.length): number[] {
  const isSpawned = own < entropy.length;
  const padding = new Array<number>(isSpawned ? Math.max(POOL_SIZE - own, 0) : 0).fill(0);
  const words = [...entropy.slice(0, own), ...padding, ...entropy.slice(own)];
  const hash = hasher(0x43b0d7e5, 0x931e8875);
  const pool = Array.from({ length: POOL_SIZE }, (_, i) => hash(words[i] ?? 0));
  for (let from = 0; from < POOL_SIZE; from++) {
    for (let to = 0; to < POOL_SIZE; to++) {
      if (from !== to) {
        pool[to] = mix(pool[to]!, hash(pool[from]!));
      }
    }
  }
  for (const word of words.slice(POOL_SIZE)) {
    for (let to = 0; to < POOL_SIZE; to++) {
      pool[to] = mix(pool[to]!, hash(word));
    }
  }
  const output = hasher(0x8b51f9dd, 0x58f38ded);
  return Array.from({ length: count }, (_, i) => output(pool[i % POOL_SIZE]!));
}

/** A hash of words whose constant changes from call to call. */
function hasher(start: number, factor: number): (word: number) => number {
  let constant = start;
  return (word) => {
    const mixed = word ^ constant;
    constant = Math.imul(constant, factor);
    const product = Math.imul(mixed, constant);
    return (product ^ (product >>> 16)) >>> 0;
  };
}

function mix(x: number, y: number): number {
  const difference = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) | 0;
  return (difference ^ (difference >>> 16)) >>> 0;
}
