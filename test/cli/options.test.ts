import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { Command } from 'commander';
import {
  addOptions,
  type DrawingCommand,
  OPTIONS,
  type OptionRow,
  type OptionValues,
  optionsFor,
} from '../../src/cli/options.js';

/** Without the spaces and dashes that align a table's columns. */
const plain = (text: string) => text.replace(/ +\|/g, ' |').replace(/-+ \|/g, '- |');
const cell = (text: string) => text.replaceAll('|', '\\|');
const shown = ({ default: value, defaultText }: OptionRow) => defaultText ?? (value === undefined ? '' : String(value));
const commands = ({ only }: OptionRow) => (only ? only.join(', ') : 'all');

/** The table of docs/command-line.md. */
function markdownTable(): string {
  const rows = OPTIONS.map(
    (row) => `| \`${row.flags}\` | ${cell(row.text)} | ${cell(shown(row))} | ${commands(row)} |`,
  );
  return ['| option | meaning | default | commands |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

/** What the parser makes of a command line. */
function parse(command: DrawingCommand, ...args: string[]): OptionValues {
  const parser = new Command().exitOverride();
  addOptions(parser, command);
  parser.parse(args, { from: 'user' });
  return parser.opts();
}

describe('the options of the command line', () => {
  test('docs/command-line.md has the same table', () => {
    const page = readFileSync('docs/command-line.md', 'utf8');
    expect(plain(page)).toContain(plain(markdownTable()));
  });

  test('go where the table says', () => {
    const values = parse('txt2img', '--steps', '3', '--dtype', 'bfloat16', '--clip-skip', '1', '--vae-tiling');
    expect(optionsFor('call', values)).toEqual({
      numInferenceSteps: 3,
      guidanceScale: 7.5,
      guidanceRescale: 0,
      numImagesPerPrompt: 1,
      eta: 0,
      clipSkip: 1,
      promptSyntax: 'diffusers',
    });
    expect(optionsFor('load', values)).toEqual({ backend: 'auto', dtype: 'bfloat16' });
    expect(values).toMatchObject({ vaeTiling: true, batch: 1 });
  });

  test('img2img has a picture to begin with, and no size of its own', () => {
    expect(optionsFor('call', parse('img2img', '--image', 'a.png'))).toMatchObject({ image: 'a.png' });
    expect(() => parse('img2img')).toThrow(/--image/);
    expect(() => parse('img2img', '--image', 'a.png', '--width', '8')).toThrow(/--width/);
    expect(() => parse('txt2img', '--image', 'a.png')).toThrow(/--image/);
  });

  test('inpaint has a picture, a mask and a size', () => {
    const given = parse('inpaint', '--image', 'a.png', '--mask', 'b.png', '--width', '8', '--padding-mask-crop', '4');
    const expected = { image: 'a.png', maskImage: 'b.png', width: 8, paddingMaskCrop: 4 };
    expect(optionsFor('call', given)).toMatchObject(expected);
    expect(() => parse('inpaint', '--image', 'a.png')).toThrow(/--mask/);
  });
});
