import { InvalidArgumentError as InvalidOption } from 'commander';

/** Reads a finite number between the bounds. */
export function numberOption(min = -Number.MAX_VALUE, max = Number.MAX_VALUE): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!(value >= min && value <= max)) {
      const range =
        min === -Number.MAX_VALUE ? '' : max === Number.MAX_VALUE ? ` from ${min}` : ` from ${min} to ${max}`;
      throw new InvalidOption(`Expected a number${range}.`);
    }
    return value;
  };
}

/** Reads a whole number of at least `min`. */
export function countOption(min: number): (text: string) => number {
  return (text) => {
    const value = /^\+?\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
    if (!(Number.isSafeInteger(value) && value >= min)) {
      throw new InvalidOption(`Expected a whole number of at least ${min}.`);
    }
    return value;
  };
}

/** Reads any seed that torch takes. */
export function seedOption(text: string): bigint {
  const value = /^[+-]?\d+$/.test(text.trim()) ? BigInt(text.trim().replace(/^\+/, '')) : undefined;
  if (value === undefined || value < -(2n ** 63n) || value >= 2n ** 64n) {
    throw new InvalidOption('Expected a whole number from -2^63 to 2^64 - 1.');
  }
  return value;
}

/** Reads a JSON object. */
export function jsonObjectOption(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InvalidOption(`Expected JSON: ${(error as Error).message}.`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new InvalidOption('Expected a JSON object such as {"use_karras_sigmas": true}.');
  }
  return value as Record<string, unknown>;
}
