import { existsSync } from 'node:fs';
import { extname, join } from 'node:path';
import { checkImagePath, imageFormatOf } from '../images/index.js';
import { asUsage } from './exit.js';

/** A file name for what the prompt says: 'A red circle!' becomes 'a-red-circle'. */
function slug(prompt: string): string {
  const words = prompt
    .normalize('NFKD')
    .replace(/\p{Mark}/gu, '')
    .toLowerCase()
    .split(/[^\p{Letter}\p{Number}]+/u)
    .filter(Boolean);
  let name = '';
  for (const word of words) {
    if (name.length + word.length > 60) {
      break;
    }
    name += name ? `-${word}` : word;
  }
  return name || 'picture';
}

/** 'star.png' becomes 'star-1.png', 'star-2.png', ... for several pictures. */
function numbered(path: string, count: number): string[] {
  if (count === 1) {
    return [path];
  }
  const extension = extname(path);
  const stem = path.slice(0, path.length - extension.length);
  const digits = String(count).length;
  return Array.from({ length: count }, (_, i) => `${stem}-${String(i + 1).padStart(digits, '0')}${extension}`);
}

/** Names made of the prompt, in the current directory, that no file has yet. */
function unusedNames(prompt: string, count: number): string[] {
  const stem = slug(prompt);
  for (let attempt = 1; ; attempt++) {
    const paths = numbered(join(`${stem}${attempt > 1 ? `-v${attempt}` : ''}.png`), count);
    if (!paths.some((path) => existsSync(path))) {
      return paths;
    }
  }
}

/**
 * Where the pictures go: numbered files beside `out`, or unused names made of the prompt when there is none.
 * @throws UsageError when the extension names no picture format, FileWriteError when nothing can be written there
 */
export async function outputPaths(out: string | undefined, prompt: string, count: number): Promise<string[]> {
  if (out !== undefined) {
    await asUsage(() => imageFormatOf(out));
  }
  const paths = out === undefined ? unusedNames(prompt, count) : numbered(out, count);
  for (const path of paths) {
    await asUsage(() => checkImagePath(path));
  }
  return paths;
}
