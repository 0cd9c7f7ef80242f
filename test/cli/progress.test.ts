import { Writable } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import { formatSeconds, ProgressDisplay } from '../../src/cli/progress.js';

class Screen extends Writable {
  text = '';
  constructor(readonly isTTY: boolean) {
    super();
  }
  override _write(chunk: Buffer, _: BufferEncoding, done: () => void): void {
    this.text += chunk;
    done();
  }
}

function play(display: ProgressDisplay): void {
  const file = 'unet/weights.safetensors';
  display.loading({ stage: 'download', file, overallLoaded: 5e6, overallTotal: 2e9 });
  display.loading({ stage: 'load', component: 'unet', loaded: 1, total: 4 });
  display.note('seed 7');
  display.startDenoising(2);
  display.denoising({ stage: 'denoise', step: 1, total: 2, seconds: 0.5 });
}

const HIDDEN = '\x1b[?25l';
const SHOWN = '\x1b[?25h';

describe('ProgressDisplay', () => {
  test('draws bars on a terminal and brings the cursor back', () => {
    const screen = new Screen(true);
    const display = new ProgressDisplay(false, screen);
    play(display);
    expect(screen.text).toMatch(/downloading \[ +\] 5\.0 of 2000 MB {2}unet\/weights\.safetensors/);
    expect(screen.text).toMatch(/loading {5}\[={6} {18}\] unet/);
    expect(screen.text).toMatch(/drawing {5}\[ {24}\] 0\/2/);
    expect(screen.text).toContain('seed 7\n');
    expect(screen.text.lastIndexOf(HIDDEN)).toBeGreaterThan(screen.text.lastIndexOf(SHOWN));
    display.close();
    expect(screen.text.lastIndexOf(SHOWN)).toBeGreaterThan(screen.text.lastIndexOf(HIDDEN));
    const before = screen.text;
    display.denoising({ stage: 'denoise', step: 2, total: 2, seconds: 0.5 });
    expect(screen.text).toBe(before);
  });

  test('writes plain lines elsewhere', () => {
    const screen = new Screen(false);
    const display = new ProgressDisplay(false, screen);
    play(display);
    display.denoised({ encode: 0, decode: 0, denoise: 1, total: 1.5, steps: [0.5, 0.5] });
    expect(screen.text).toBe('downloading\ndownloaded 2000 MB\nseed 7\ndrew 2 steps, 0.50 s each; 1.50 s in all\n');
  });

  test.each([true, false])('writes nothing when quiet (terminal: %s)', (isTTY) => {
    const screen = new Screen(isTTY);
    play(new ProgressDisplay(true, screen));
    expect(screen.text).toBe('');
  });

  test.each([
    [0.1234, '0.12 s'],
    [12.34, '12.3 s'],
    [125, '2 min 5 s'],
  ])('%d seconds read %s', (seconds, text) => {
    expect(formatSeconds(seconds)).toBe(text);
  });
});
