import { spawn } from 'node:child_process';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { FileWriteError } from '../../src/errors.js';
import { files } from '../../src/platform/node/index.js';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'files-'));
});
afterEach(() => rm(dir, { recursive: true }));

const modeOf = async (path: string): Promise<number> => (await stat(path)).mode & 0o777;

describe('write', () => {
  test('keeps the mode of the file that is there, and follows a link to it', async () => {
    const path = join(dir, 'secret.json');
    await writeFile(path, 'old');
    await chmod(path, 0o600);
    await symlink(path, join(dir, 'link'));
    await files.write(join(dir, 'link'), 'new');
    expect(await readFile(path, 'utf8')).toBe('new');
    expect(await modeOf(path)).toBe(0o600);
    expect((await readdir(dir)).sort()).toEqual(['link', 'secret.json']);
  });

  test('a failure leaves what was there, and no temporary file', async () => {
    const path = join(dir, 'a');
    await files.write(path, 'old');
    const failing = files.write(path, async (sink) => {
      await sink(new Uint8Array(10));
      throw new Error('no more');
    });
    await expect(failing).rejects.toThrow('no more');
    expect(await readFile(path, 'utf8')).toBe('old');
    expect(await readdir(dir)).toEqual(['a']);
  });

  test('temporary files of a day ago are removed, fresh ones and those of others are not', async () => {
    const names = ['.a.0123456789ab.tmp', '.b.0123456789ab.tmp', '.other.tmp'];
    const old = new Date(Date.now() - 25 * 3600 * 1000);
    for (const name of names) {
      await writeFile(join(dir, name), '');
      await utimes(join(dir, name), old, old);
    }
    await utimes(join(dir, names[1]!), new Date(), new Date());
    await files.write(join(dir, 'c'), '');
    expect((await readdir(dir)).sort()).toEqual([...names.slice(1), 'c'].sort());
  });
});

describe('save', () => {
  const fill =
    (text: string, paths = ['index.json', 'unet/config.json', 'unet/weights']) =>
    async (staging: string): Promise<void> => {
      for (const path of paths) {
        await mkdir(join(staging, path, '..'), { recursive: true });
        await files.write(join(staging, path), text);
      }
    };
  const contents = async (): Promise<Record<string, string>> => {
    const names = (await readdir(dir, { recursive: true })).sort();
    const isFile = await Promise.all(names.map(async (name) => (await stat(join(dir, name))).isFile()));
    const found = names.filter((_, i) => isFile[i]);
    return Object.fromEntries(await Promise.all(found.map(async (n) => [n, await readFile(join(dir, n), 'utf8')])));
  };
  const all = (text: string) => ({ 'index.json': text, 'unet/config.json': text, 'unet/weights': text });

  test('replaces its files and what goes with them, keeps others and modes', async () => {
    await files.save(dir, fill('old'));
    await writeFile(join(dir, 'README.md'), 'mine');
    await writeFile(join(dir, 'unet', 'shard-2'), 'old');
    await chmod(join(dir, 'unet', 'weights'), 0o600);
    await files.save(dir, fill('new'), (path) => path.startsWith('unet/shard'));
    expect(await contents()).toEqual({ ...all('new'), 'README.md': 'mine' });
    expect(await modeOf(join(dir, 'unet', 'weights'))).toBe(0o600);
  });

  test('a failure changes nothing', async () => {
    await files.save(dir, fill('old'));
    const failing = files.save(dir, async (staging) => {
      await fill('new', ['index.json'])(staging);
      throw new Error('out of memory');
    });
    await expect(failing).rejects.toThrow('out of memory');
    await mkdir(join(dir, 'b'));
    await expect(files.save(dir, fill('new', ['index.json', 'b']))).rejects.toThrow(FileWriteError);
    expect(await contents()).toEqual(all('old'));
    expect((await readdir(dir)).sort()).toEqual(['b', 'index.json', 'unet']);
  });

  test('what was written whole is put in place later, what was not is removed', async () => {
    await files.save(dir, fill('old'));
    const gone = join(dir, '.tfjs-save-99999999-0123456789ab');
    await fill('new')(gone);
    await files.finishSaves(dir);
    expect(await contents()).toEqual(all('old'));
    await fill('new')(gone);
    const commit = { files: ['unet/weights', 'unet/config.json', 'index.json'], removed: [] };
    await writeFile(join(gone, 'commit.json'), JSON.stringify(commit));
    await rename(join(gone, 'unet', 'weights'), join(dir, 'unet', 'weights'));
    await files.finishSaves(dir);
    expect(await contents()).toEqual(all('new'));
  });

  test('a commit that leads out of the directory is not carried out', async () => {
    const foreign = join(dir, 'model', '.tfjs-save-99999999-0123456789ab');
    await mkdir(foreign, { recursive: true });
    await writeFile(join(dir, 'precious'), 'kept');
    await writeFile(join(foreign, 'commit.json'), JSON.stringify({ files: [], removed: ['../precious'] }));
    await files.finishSaves(join(dir, 'model'));
    expect(await readFile(join(dir, 'precious'), 'utf8')).toBe('kept');
  });

  const CHILD = `
    import { pickBackend, UNet2DConditionModel } from '${pathToFileURL('dist/index.js')}';
    await pickBackend('cpu');
    const unet = await UNet2DConditionModel.fromPretrained('weights/tiny-shapes/unet');
    console.log('loaded');
    for (let i = 1; ; i++) {
      const config = { ...unet.config, sample_size: i };
      Object.defineProperty(unet, 'config', { value: config });
      unet.parameters[0].assign(new Float32Array(unet.parameters[0].shape.reduce((a, b) => a * b)).fill(i));
      await unet.savePretrained(process.argv[1]);
    }`;

  test.each([3, 20, 40, 60, 80, 110, 150, 190])(
    'a process killed %d ms into saving leaves one whole state',
    async (ms) => {
      const child = spawn(process.execPath, ['--input-type=module', '-e', CHILD, dir], {
        env: { ...process.env, NODE_OPTIONS: '' },
      });
      await new Promise((resolve) => child.stdout.once('data', resolve));
      const ended = new Promise((resolve) => child.once('close', resolve));
      while (!(await readdir(dir)).includes('config.json')) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      setTimeout(() => child.kill('SIGKILL'), ms);
      await ended;
      await files.finishSaves(dir);
      expect((await readdir(dir)).sort()).toEqual(['config.json', 'diffusion_pytorch_model.safetensors']);
      const config = JSON.parse(await readFile(join(dir, 'config.json'), 'utf8'));
      expect(await firstWeight(join(dir, 'diffusion_pytorch_model.safetensors'))).toBe(config.sample_size);
    },
  );
});

/** The number that the parameter which the child fills holds. */
async function firstWeight(path: string): Promise<number> {
  const bytes = await readFile(path);
  const length = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<
    string,
    { data_offsets: [number, number] }
  >;
  return bytes.readFloatLE(8 + length + header['conv_in.weight']!.data_offsets[0]);
}
