import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
/** Tests of what is in dist/; the others run what is in src/. */
const RUNS_DIST = /^test\/(cli|package|browser)\//;

/** Files that git knows or would take up, without those that were deleted. */
function sources() {
  const list = execFileSync('git', ['ls-files', '-coz', '--exclude-standard'], { cwd: ROOT, maxBuffer: 1 << 28 });
  return list
    .toString()
    .split('\0')
    .filter((path) => path && existsSync(join(ROOT, path)));
}

const copyOver = (from, to) => cpSync(from, to, { recursive: true, preserveTimestamps: true, verbatimSymlinks: true });

/** What CMake made says absolute paths; without them it would build everything again. */
function moveBuild(folder, from, to) {
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true }).filter((e) => e.isFile())) {
    const path = join(entry.parentPath, entry.name);
    const bytes = readFileSync(path);
    if (bytes.includes(from) && !bytes.includes(0)) {
      const { atime, mtime } = statSync(path);
      writeFileSync(path, bytes.toString().replaceAll(from, to));
      utimesSync(path, atime, mtime);
    }
  }
}

/** A copy of the repository in a temporary folder, in which bugs are planted one at a time. */
export class Tree {
  root = mkdtempSync(join(tmpdir(), 'tfjs-diffusers-mutate-'));
  /** Whether build/ is not that of native/. */
  needsBuild = false;

  constructor() {
    for (const path of sources()) {
      copyOver(join(ROOT, path), join(this.root, path));
    }
    for (const path of ['node_modules', '.deps'].filter((each) => existsSync(join(ROOT, each)))) {
      symlinkSync(join(ROOT, path), join(this.root, path));
    }
    for (const path of ['build/native', 'build/cmake', 'dist'].filter((each) => existsSync(join(ROOT, each)))) {
      copyOver(join(ROOT, path), join(this.root, path));
    }
    if (existsSync(join(this.root, 'build/cmake'))) {
      moveBuild(join(this.root, 'build/cmake'), ROOT, this.root);
    }
  }

  read(file) {
    return readFileSync(join(this.root, file), 'utf8');
  }

  /** Runs `work` with another text in a file. */
  async with({ file, tests }, text, work) {
    const path = join(this.root, file);
    const [before, { atime, mtime }] = [this.read(file), statSync(path)];
    const isNative = file.startsWith('native/');
    const put = (content) => {
      writeFileSync(path, content);
      this.needsBuild ||= isNative;
      // dist/ is built again when something in src/ is newer
      if (!isNative && !RUNS_DIST.test(tests[0])) {
        utimesSync(path, atime, mtime);
      }
    };
    put(text);
    try {
      return await work();
    } finally {
      put(before);
    }
  }

  remove() {
    rmSync(this.root, { recursive: true, force: true, maxRetries: 5 });
  }
}
