import { files, pathOf } from '#platform';

/** The merges of CLIP's tokenizer, which come with the package (weights/clip). */
const MERGES = pathOf(new URL('../../weights/clip/merges.txt', import.meta.url));

let known: Promise<[string, string][]> | undefined;

/**
 * CLIP's own vocabulary and merges (Radford et al. 2021; clip/simple_tokenizer.py), those of all checkpoints of Stable
 * Diffusion.
 */
export async function clipVocabulary(): Promise<{ vocab: Record<string, number>; merges: [string, string][] }> {
  known ??= readMerges();
  const merges = await known;
  const bytes = byteCharacters();
  const ends = bytes.map((char) => `${char}</w>`);
  const joined = merges.map((pair) => pair.join(''));
  const tokens = [...bytes, ...ends, ...joined, '<|startoftext|>', '<|endoftext|>'];
  return { vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges };
}

async function readMerges(): Promise<[string, string][]> {
  const text = new TextDecoder().decode(await files.readBytes(MERGES));
  const [, ...lines] = text.trimEnd().split('\n');
  return lines.map((line) => line.split(' ') as [string, string]);
}

/** A printable character for each byte, in the order of CLIP's vocabulary (clip/simple_tokenizer.py, bytes_to_unicode). */
function byteCharacters(): string[] {
  const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const printable = [...range(0x21, 0x7e), ...range(0xa1, 0xac), ...range(0xae, 0xff)];
  const others = range(0, 255).filter((byte) => !printable.includes(byte));
  return [...printable, ...others.map((_, i) => 256 + i)].map((code) => String.fromCodePoint(code));
}
