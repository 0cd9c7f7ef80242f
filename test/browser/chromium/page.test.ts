import { mkdir } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import sharp from 'sharp';
import { PARAMETERS_KEY, parseParameters } from '../../../src/images/index.js';
import { StableDiffusionPipeline } from '../../../src/pipelines/index.js';
import { drawPicture, fillForm, newestFile, type OpenPage, openPage } from './page.js';

const PROMPT = 'a large yellow star on a purple background';
/** Where pictures of the page go, to be looked at. */
const SHOTS = 'build/browser-screenshots';

/** What the library draws in Node, by wasm: [height, width, 3]. */
async function drawInNode(steps: number, seed: number): Promise<Uint8Array> {
  const pipe = await StableDiffusionPipeline.fromPretrained('weights/tiny-shapes', { backend: 'wasm' });
  const { images } = await pipe(PROMPT, { numInferenceSteps: steps, seed });
  pipe.dispose();
  return images[0]!.data;
}

async function pixelsOf(png: Uint8Array): Promise<Uint8Array> {
  return sharp(png).removeAlpha().raw().toBuffer();
}

/** The share of numbers that are more than a level apart. */
function shareApart(a: Uint8Array, b: Uint8Array): number {
  expect(a).toHaveLength(b.length);
  return a.filter((value, i) => Math.abs(value - b[i]!) > 1).length / a.length;
}

describe('the page in Chromium', () => {
  let open: OpenPage;
  beforeAll(async () => {
    await mkdir(SHOTS, { recursive: true });
    open = await openPage();
  });
  afterAll(() => open.close());

  const draw = async (settings: Record<string, string>): Promise<string> => {
    await fillForm(open.page, { prompt: PROMPT, seed: '0', steps: '2', model: 'models/tiny-shapes', ...settings });
    return drawPicture(open.page);
  };
  const shoot = (name: string) => open.page.screenshot({ path: `${SHOTS}/${name}.png`, fullPage: true });

  test('names its fields for everybody, and fits a narrow window', async () => {
    await shoot('start');
    const unnamed = await open.page
      .locator('input, select, textarea, button')
      .evaluateAll(
        (fields) =>
          fields.filter((field) => !(field as HTMLInputElement).labels?.length && !field.textContent?.trim()).length,
      );
    expect(unnamed).toBe(0);
    await open.page.setViewportSize({ width: 360, height: 800 });
    const overflow = await open.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    await shoot('narrow');
    await open.page.setViewportSize({ width: 1200, height: 900 });
    expect(overflow).toBeLessThanOrEqual(0);
  });

  test.each(['wasm', 'webgpu'])("draws Node's picture by %s, with its settings in the file", async (backend) => {
    expect(await draw({ backend })).toMatch(/^Drawn in .* with seed 0\.$/);
    const png = await newestFile(open.page);
    expect(shareApart(await pixelsOf(png), await drawInNode(2, 0))).toBeLessThanOrEqual(0.001);
    const text = (await sharp(png).metadata()).comments?.find(({ keyword }) => keyword === PARAMETERS_KEY)?.text;
    expect(parseParameters(text!)).toMatchObject({ prompt: PROMPT, settings: { Seed: '0' } });
    await shoot(`done-${backend}`);
  });

  test('cancels a picture and draws the next', async () => {
    await fillForm(open.page, { backend: 'wasm', steps: '500' });
    await open.page.locator('#draw').click();
    await open.page.getByText(/^Step [1-9]/).waitFor();
    await shoot('drawing');
    await open.page.locator('#cancel').click();
    await open.page.getByText('Cancelled.').waitFor();
    expect(await draw({ backend: 'wasm' })).toMatch(/^Drawn/);
  });

  test('says what is wrong with a model that is not there, and goes on', async () => {
    await draw({ backend: 'wasm', model: 'models/nothing' });
    await expect(open.page.locator('#error').textContent()).resolves.toMatch(/models\/nothing/);
    await shoot('error');
    expect(await draw({ backend: 'wasm' })).toMatch(/^Drawn/);
    await expect(open.page.locator('#error').isVisible()).resolves.toBe(false);
  });

  test('takes the settings of a picture back', async () => {
    await fillForm(open.page, { prompt: 'something else', steps: '7' });
    await open.page.getByRole('button', { name: 'Use settings' }).first().click();
    await expect(open.page.locator('[name="prompt"]').inputValue()).resolves.toBe(PROMPT);
    await expect(open.page.locator('[name="steps"]').inputValue()).resolves.toBe('2');
  });

  test('complains of nothing but the files that were not there', () => {
    expect(open.complaints.filter((text) => !/404/.test(text))).toEqual([]);
  });
});
