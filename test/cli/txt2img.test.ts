import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import sharp from 'sharp';
import { parseParameters, readParameters } from '../../src/images/index.js';
import { loadSafetensors } from '../support/safetensors.js';
import { pixelsOf, runCli, scratch } from './support.js';

const CASES = resolve('test/fixtures/tiny-shapes');
const WASM = ['--backend', 'wasm'];

let dir: string;
let remove: () => void;
beforeEach(() => {
  ({ dir, remove } = scratch());
});
afterEach(() => remove());

/** The command line of a case of Python diffusers: with class names of schedulers, or with the given short one. */
function argumentsOf(name: string, scheduler?: string): string[] {
  const { metadata } = loadSafetensors(join(CASES, `${name}.safetensors`));
  const [prompt] = JSON.parse(metadata.prompt!.replaceAll("'", '"')) as string[];
  const optional = { scheduler: scheduler ?? metadata.scheduler, width: metadata.width, height: metadata.height };
  const given = Object.entries(optional).filter(([, value]) => value !== undefined && value !== 'None');
  return [
    prompt!,
    ...['--negative', metadata.negative!, '--steps', metadata.steps!, '--guidance', metadata.guidance!],
    ...['--seed', metadata.seed!, '--scheduler-config', metadata.scheduler_config!],
    ...given.flatMap(([option, value]) => [`--${option}`, value!]),
  ];
}

describe('a picture', () => {
  test.each([
    { name: 'default', scheduler: undefined },
    { name: 'ddim_negative', scheduler: undefined },
    { name: 'dpm_wide', scheduler: 'DPM++ 2M' },
    { name: 'euler_ancestral', scheduler: 'euler_a' },
    { name: 'pndm', scheduler: 'plms' },
  ])('is the one that Python diffusers draws: $name', async ({ name, scheduler }) => {
    const args = [...argumentsOf(name, scheduler), '--out', 'star.png', ...WASM];
    const { code, stdout, stderr } = await runCli(args, { cwd: dir });
    expect(stderr).toMatch(
      /^loaded tiny-shapes in .+ s\nseed \d+, wasm backend\ndrew \d+ steps, .+ each; .+ in all\n$/,
    );
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'star.png\n' });
    expect(readdirSync(dir)).toEqual(['star.png']);
    const drawn = await pixelsOf(join(dir, 'star.png'));
    const expected = await pixelsOf(join(CASES, `${name}.png`));
    expect(drawn).toHaveLength(expected.length);
    const off = expected.filter((value, i) => Math.abs(value - drawn[i]!) > 1).length;
    expect(off / expected.length).toBeLessThanOrEqual(0.001);
  });

  test('needs but the prompt', async () => {
    const { code, stdout } = await runCli(['A red circle!', '--seed', '4'], { cwd: dir });
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'a-red-circle.png\n' });
    const { prompt, settings } = parseParameters((await readParameters(join(dir, 'a-red-circle.png')))!);
    expect(prompt).toBe('A red circle!');
    expect(settings).toMatchObject({ Steps: '20', Sampler: 'Euler', 'CFG scale': '7.5', Seed: '4', Size: '64x64' });
  });

  test('follows every option', async () => {
    const args = [
      'a (red:1.2) circle',
      '--negative',
      'blue',
      '--steps',
      '4',
      '--guidance',
      '5',
      '--guidance-rescale',
      '0.5',
    ];
    args.push('--seed', '18446744073709551615', '--scheduler', 'ddim', '--scheduler-config', '{"steps_offset":0}');
    args.push(
      '--prompt-syntax',
      'a1111',
      '--eta',
      '0.5',
      '--clip-skip',
      '1',
      '--width',
      '80',
      '--height',
      '48',
      '--attention',
      'classic',
    );
    args.push('--model', resolve('weights/tiny-shapes'), '--out', 'circle.png', '--quiet', ...WASM);
    const { code, stdout, stderr } = await runCli(args, { cwd: dir });
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'circle.png\n', stderr: '' });
    const { negativePrompt, settings } = parseParameters((await readParameters(join(dir, 'circle.png')))!);
    expect(negativePrompt).toBe('blue');
    expect(settings).toMatchObject({
      Steps: '4',
      Sampler: 'DDIM',
      'CFG scale': '5',
      Seed: '18446744073709551615',
      Size: '80x48',
      'Clip skip': '2',
      'CFG Rescale': '0.5',
      Eta: '0.5',
    });
  });

  test('has ways to save time and memory', async () => {
    const args = ['a red circle', '--seed', '1', '--steps', '6', '--json', '--quiet', '--out', 'a.png', ...WASM];
    const draw = async (...more: string[]) => {
      const { code, stderr } = await runCli([...args, ...more], { cwd: dir });
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      return pixelsOf(join(dir, 'a.png'));
    };
    const plain = await draw();
    for (const same of [['--offload', 'model'], ['--offload', 'sequential'], ['--vae-slicing']]) {
      expect((await draw(...same)).equals(plain)).toBe(true);
    }
    for (const other of [
      ['--token-merging', '0.5'],
      ['--negative-guidance-min-sigma', '5'],
      ['--skip-early-cond', '0.5'],
    ]) {
      expect((await draw(...other)).equals(plain)).toBe(false);
    }
  });

  test('without --out gets a name of its own each time', async () => {
    const args = ["What's a small blue ring, at the top?", '--steps', '1', '--seed', '1', '--quiet', ...WASM];
    const first = await runCli(args, { cwd: dir });
    const before = readFileSync(join(dir, first.stdout.trim()));
    const second = await runCli([...args, '--batch', '2'], { cwd: dir });
    const third = await runCli([...args, '--guidance', '1'], { cwd: dir });
    expect(first.stdout).toBe('what-s-a-small-blue-ring-at-the-top.png\n');
    expect(second.stdout.split('\n').slice(0, 2)).toEqual(
      [1, 2].map((i) => `what-s-a-small-blue-ring-at-the-top-${i}.png`),
    );
    expect(third.stdout).toBe('what-s-a-small-blue-ring-at-the-top-v2.png\n');
    expect(readdirSync(dir)).toHaveLength(4);
    expect(readFileSync(join(dir, first.stdout.trim())).equals(before)).toBe(true);
  });

  test.each(['jpg', 'webp'])('several at once are numbered .%s files', async (extension) => {
    const out = join(dir, `ring.${extension}`);
    const { code, stdout } = await runCli(['a ring', '--steps', '2', '--batch', '3', '--out', out, '--quiet', ...WASM]);
    const files = [1, 2, 3].map((i) => join(dir, `ring-${i}.${extension}`));
    expect({ code, files: stdout.trim().split('\n') }).toEqual({ code: 0, files });
    for (const file of files) {
      const { format, width, height } = await sharp(file).metadata();
      expect({ format, width, height }).toEqual({ format: extension.replace('jpg', 'jpeg'), width: 64, height: 64 });
    }
    expect((await pixelsOf(files[0]!)).equals(await pixelsOf(files[1]!))).toBe(false);
  });
});

describe('--json', () => {
  test('prints one object and nothing else, and its seed draws the picture again', async () => {
    const args = ['a green heart', '--steps', '3', '--quiet', '--json', ...WASM];
    const first = await runCli([...args, '--out', 'first.png'], { cwd: dir });
    expect({ code: first.code, stderr: first.stderr }).toEqual({ code: 0, stderr: '' });
    const report = JSON.parse(first.stdout);
    expect(report).toMatchObject({
      files: ['first.png'],
      prompt: 'a green heart',
      steps: 3,
      guidanceScale: 7.5,
      scheduler: 'EulerDiscreteScheduler',
      width: 64,
      height: 64,
      batch: 1,
      backend: 'wasm',
      attention: 'auto',
      versions: { 'tfjs-diffusers': JSON.parse(readFileSync('package.json', 'utf8')).version },
    });
    const { steps, ...stages } = report.timings;
    expect(steps).toHaveLength(3);
    expect(Object.keys(stages).sort()).toEqual(['decode', 'denoise', 'download', 'encode', 'load', 'save', 'total']);
    expect(stages.total).toBeGreaterThan(stages.load + stages.encode + stages.denoise + stages.decode);
    // 5.9 million weights, computed with in float32
    expect(report.memory.heldBytes).toBeGreaterThan(4 * 5.9e6);
    expect(report.peakMemoryBytes).toBeGreaterThan(report.memory.heldBytes);
    expect(report.memory.peakProcessBytes).toBeGreaterThan(report.peakMemoryBytes);

    const again = await runCli([...args, '--out', 'again.png', '--seed', String(report.seed)], { cwd: dir });
    const other = JSON.parse((await runCli([...args, '--out', 'other.png'], { cwd: dir })).stdout);
    expect(again.code).toBe(0);
    expect(readFileSync(join(dir, 'again.png')).equals(readFileSync(join(dir, 'first.png')))).toBe(true);
    expect(other.seed).not.toBe(report.seed);
  });
});

describe('stopping', () => {
  const LONG = ['a star', '--steps', '1000', '--out', 'never.png', ...WASM];

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s ends the drawing with exit code %i and leaves no file', async (signal, code) => {
    let sent = false;
    const ended = await runCli(LONG, {
      cwd: dir,
      onStderr: (text, child) => {
        if (!sent && text.includes('seed ')) {
          sent = true;
          child.kill(signal);
        }
      },
    });
    expect(ended).toMatchObject({ code, signal: null, stdout: '' });
    expect(ended.stderr).toMatch(/tfjs-diffusers: stopped\n$/);
    expect(readdirSync(dir)).toEqual([]);
  });

  test('a second signal ends it, too', async () => {
    let sent = 0;
    const ended = await runCli(LONG, {
      cwd: dir,
      onStderr: (text, child) => {
        if (text.includes('seed ') && sent++ === 0) {
          child.kill('SIGINT');
          child.kill('SIGINT');
        }
      },
    });
    expect(ended.code === 130 || ended.signal === 'SIGINT').toBe(true);
    expect(readdirSync(dir)).toEqual([]);
  });

  test('a reader that goes away does not spoil the picture', async () => {
    const { code, stderr } = await runCli(
      ['a star', '--steps', '2', '--out', 'star.png', '--json', '--quiet', ...WASM],
      {
        cwd: dir,
        onStart: (child) => child.stdout!.destroy(),
      },
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(await pixelsOf(join(dir, 'star.png'))).toHaveLength(64 * 64 * 3);
  });
});

describe('other commands', () => {
  test('img2img begins with a picture, and the same line draws the same one', async () => {
    const out = (name: string) => ['--seed', '3', '--steps', '4', '--quiet', '--out', name, ...WASM];
    expect(await runCli(['a red circle', ...out('first.png')], { cwd: dir })).toMatchObject({ code: 0 });
    const again = ['img2img', 'a blue circle', '--image', 'first.png', '--strength', '0.5'];
    expect(await runCli([...again, ...out('second.png')], { cwd: dir })).toMatchObject({ code: 0, stderr: '' });
    expect(await runCli([...again, ...out('third.png')], { cwd: dir })).toMatchObject({ code: 0 });
    const [first, second, third] = await Promise.all(
      ['first', 'second', 'third'].map((name) => pixelsOf(join(dir, `${name}.png`))),
    );
    expect(second!.equals(third!)).toBe(true);
    expect(second!.equals(first!)).toBe(false);
  });

  test('inpaint draws what a mask says anew, and --from draws it again', async () => {
    const mask = Buffer.alloc(64 * 64).fill(255, 64 * 32);
    const raw = { width: 64, height: 64, channels: 1 as const };
    await sharp(mask, { raw }).toFile(join(dir, 'mask.png'));
    const colours = Buffer.from(Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7) % 256));
    await sharp(colours, { raw: { ...raw, channels: 3 } }).toFile(join(dir, 'first.png'));
    const pictures = ['--image', 'first.png', '--mask', 'mask.png'];
    const crop = ['--padding-mask-crop', '2', '--width', '32', '--height', '32', '--steps', '2'];
    const out = (name: string) => ['--quiet', '--out', name];
    const drawn = await runCli(['inpaint', 'a star', ...pictures, ...crop, ...out('part.png'), ...WASM], { cwd: dir });
    expect(drawn).toMatchObject({ code: 0, stderr: '' });
    const [first, part] = await Promise.all(['first', 'part'].map((name) => pixelsOf(join(dir, `${name}.png`))));
    expect(part!.subarray(0, 64 * 32 * 3).equals(first!.subarray(0, 64 * 32 * 3))).toBe(true);
    expect(part!.equals(first!)).toBe(false);
    const again = await runCli(['inpaint', ...pictures, '--from', 'part.png', ...out('again.png')], { cwd: dir });
    expect(again).toMatchObject({ code: 0, stderr: '' });
    expect((await pixelsOf(join(dir, 'again.png'))).equals(part!)).toBe(true);
  });

  test('a word that is a command can be drawn, too', async () => {
    const args = ['txt2img', 'doctor', '--steps', '1', '--seed', '1', '--quiet', ...WASM];
    expect(await runCli(args, { cwd: dir })).toMatchObject({ code: 0, stdout: 'doctor.png\n' });
  });
});

describe('--from', () => {
  const draw = (...args: string[]) => runCli([...args, '--quiet', ...WASM], { cwd: dir });
  const again = async (name: string, ...args: string[]) => {
    const ended = await runCli([...args, '--from', name, '--out', 'again.png', '--quiet'], { cwd: dir });
    expect(ended).toMatchObject({ code: 0, stdout: 'again.png\n', stderr: '' });
    return pixelsOf(join(dir, 'again.png'));
  };

  test('draws the picture again that a file holds', async () => {
    const settings = ['--scheduler', 'dpmpp_2m_sde_karras', '--negative', 'blue', '--token-merging', '0.3'];
    await draw('a (red:1.2) ring', '--steps', '3', '--prompt-syntax', 'a1111', '--out', 'ring.png', ...settings);
    expect((await again('ring.png')).equals(await pixelsOf(join(dir, 'ring.png')))).toBe(true);
    const image = ['--image', 'ring.png'];
    await draw('img2img', 'a heart', ...image, '--steps', '4', '--out', 'heart.png');
    expect((await again('heart.png', 'img2img', ...image)).equals(await pixelsOf(join(dir, 'heart.png')))).toBe(true);
    const other = await runCli(['img2img', '--image', 'heart.png', '--from', 'heart.png', '--out', 'no.png'], {
      cwd: dir,
    });
    expect(other.code).toBe(1);
    expect(other.stderr).toMatch(/ring\.png/);
  });

  test('takes no prompt beside it, and needs settings', async () => {
    expect(await draw('a ring', '--from', 'ring.png')).toMatchObject({ code: 2 });
    await sharp({ create: { width: 8, height: 8, channels: 3, background: 'red' } }).toFile(join(dir, 'plain.png'));
    const { code, stderr } = await draw('--from', 'plain.png');
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(/carries no settings/) });
  });
});

describe('--preview', () => {
  test('shows the pictures in the making in one file, side by side', async () => {
    const args = ['a', '--steps', '3', '--batch', '2', '--preview', 'preview.png', '--out', 'star.png', ...WASM];
    const { code } = await runCli(args, { cwd: dir });
    expect(code).toBe(0);
    expect(readdirSync(dir).sort()).toEqual(['preview.png', 'star-1.png', 'star-2.png']);
    const { width, height } = await sharp(join(dir, 'preview.png')).metadata();
    expect([width, height]).toEqual([128, 64]);
  });

  test('an unusable path is refused before anything is drawn', async () => {
    const { code, stderr } = await runCli(['a', '--preview', 'preview.txt', ...WASM], { cwd: dir });
    expect(code).toBe(2);
    expect(stderr).toMatch(/preview\.txt/);
    expect(readdirSync(dir)).toEqual([]);
  });
});
