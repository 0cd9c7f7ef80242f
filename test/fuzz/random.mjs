/** Random values of a trial, all from one seed, so that a trial can be repeated. */
export class Random {
  constructor(seed) {
    this.state = seed >>> 0;
  }

  /** 0 <= x < 1 (mulberry32). */
  next() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from `min` to `max`, both included. */
  integer(min, max) {
    return min + Math.floor(this.next() * (max - min + 1));
  }

  chance(share) {
    return this.next() < share;
  }

  of(choices) {
    return choices[this.integer(0, choices.length - 1)];
  }

  list(length, make) {
    return Array.from({ length }, () => make());
  }

  bytes(length) {
    return Uint8Array.from(this.list(length, () => this.integer(0, 255)));
  }

  /** A number as people and attackers write it. */
  number() {
    return this.of([0, 1, -1, 2, 0.5, 3, 7, 64, 1e-30, 1e9, -1e18, 2 ** 31, 2 ** 53, NaN, Infinity, -Infinity]);
  }

  /** Any value that JSON or JavaScript has. */
  value(depth = 2) {
    const kinds = ['number', 'number', 'string', 'boolean', 'null', 'undefined', 'list', 'object'];
    switch (this.of(depth > 0 ? kinds : kinds.slice(0, 6))) {
      case 'number':
        return this.number();
      case 'string':
        return this.text(this.integer(0, 12));
      case 'boolean':
        return this.chance(0.5);
      case 'null':
        return null;
      case 'undefined':
        return undefined;
      case 'list':
        return this.list(this.integer(0, 5), () => this.value(depth - 1));
      default:
        return Object.fromEntries(this.list(this.integer(0, 3), () => [this.text(4), this.value(depth - 1)]));
    }
  }

  /** A text of letters, punctuation that prompts and metadata use, and what encodings trip over. */
  text(length) {
    const characters = [
      'a',
      'B',
      '7',
      ' ',
      '(',
      ')',
      '[',
      ']',
      ':',
      '"',
      '\\',
      ',',
      '\n',
      '\0',
      'é',
      '👩‍👩‍👧',
      '\ud800',
      '|',
      '<',
      '>',
      '.',
    ];
    return this.list(length, () => this.of(characters)).join('');
  }

  /** The bytes with some changed, removed, repeated or added. */
  damage(bytes) {
    let out = Uint8Array.from(bytes);
    for (let i = this.integer(1, 4); i > 0; i--) {
      const at = this.integer(0, Math.max(0, out.length - 1));
      const end = Math.min(out.length, at + this.integer(1, 64));
      switch (this.integer(0, 3)) {
        case 0:
          out[at] = this.integer(0, 255);
          break;
        case 1:
          out = out.slice(0, at);
          break;
        case 2:
          out = Uint8Array.from([...out.slice(0, at), ...out.slice(end)]);
          break;
        default:
          out = Uint8Array.from([...out.slice(0, end), ...this.bytes(this.integer(1, 16)), ...out.slice(at)]);
      }
    }
    return out;
  }

  /** The JSON value with one of its leaves, chosen at random, replaced. */
  damageJson(json) {
    const copy = structuredClone(json);
    let holder = copy;
    for (;;) {
      const keys = Object.keys(holder);
      const key = keys.length > 0 ? this.of(keys) : 'x';
      if (typeof holder[key] === 'object' && holder[key] !== null && this.chance(0.7)) {
        holder = holder[key];
        continue;
      }
      if (this.chance(0.1)) {
        delete holder[key];
      } else {
        holder[key] = this.value();
      }
      return copy;
    }
  }
}
