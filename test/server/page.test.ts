import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { type Browser, chromium, type Page } from 'playwright-core';
import { eventually, PROMPT, pixelsOf, RunningServer, STAR } from './support.js';

/** Debian's. */
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

let server: RunningServer;
let browser: Browser;
let page: Page;
let problems: string[];

beforeAll(async () => {
  server = await RunningServer.start('--max-steps', '60');
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
});
afterAll(async () => {
  await browser.close();
  await server.stop();
});
beforeEach(async () => {
  page = await (await browser.newContext()).newPage();
  problems = [];
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
  await page.goto(server.url);
  await page.waitForSelector('body[data-ready=yes]');
});
afterEach(async () => {
  await page.context().close();
  expect(problems).toEqual([]);
});

/** The newest picture of the gallery, as the browser has it. */
async function newestPicture(): Promise<Buffer> {
  const base64 = await page.evaluate(
    () =>
      new Promise<string>((resolve) => {
        indexedDB.open('tfjs-diffusers').onsuccess = ({ target }) => {
          const { result: database } = target as IDBOpenDBRequest;
          database.transaction('pictures').objectStore('pictures').getAll().onsuccess = (event) => {
            const { blob } = (event.target as IDBRequest).result.at(-1);
            const reader = new FileReader();
            reader.onload = () => resolve(String(reader.result).split(',')[1]!);
            reader.readAsDataURL(blob);
          };
        };
      }),
  );
  return Buffer.from(base64, 'base64');
}

async function drawn(count: number): Promise<void> {
  await page.waitForFunction((wanted) => document.querySelectorAll('#gallery li').length === wanted, count);
}

async function shoot(name: string): Promise<void> {
  if (process.env.SCREENSHOTS) {
    await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png`, fullPage: true });
  }
}

test('a prompt is typed and drawn: the picture is that of the command line, and stays after a reload', async () => {
  await page.fill('#prompt', PROMPT);
  await page.waitForFunction(() => document.querySelector('#tokens')?.textContent === '8 / 75 tokens');
  await page.fill('#seed', '0');
  await page.click('text=Advanced');
  await page.selectOption('#prompt_syntax', 'diffusers');
  await page.press('#prompt', 'Control+Enter');
  await drawn(1);
  expect(await pixelsOf(await newestPicture())).toEqual(await pixelsOf(STAR));
  expect(await page.textContent('#status')).toMatch(/^Done in \d+ s, seed 0\.$/);
  await shoot('drawn');
  await page.reload();
  await drawn(1);
});

test('previews and steps are shown while it draws, and it can be cancelled', async () => {
  await page.fill('#prompt', 'a red circle');
  await page.fill('#steps', '60');
  await page.click('#draw');
  await page.waitForSelector('#preview:not([hidden])');
  expect(await page.textContent('#status')).toMatch(/step \d+ of 60/);
  expect(await page.locator('#draw').isDisabled()).toBe(true);
  await shoot('drawing');
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => document.querySelector('#status')?.textContent === 'Cancelled.');
  expect(await page.locator('#gallery li').count()).toBe(0);
  await eventually(
    () => server.get<{ generating: number }>('/healthz'),
    ({ generating }) => generating === 0,
  );
});

test('image to image, then its settings are recalled, then the picture is deleted', async () => {
  await page.setInputFiles('#image-file', STAR);
  await page.waitForSelector('#image-box:not([hidden])');
  expect(await page.inputValue('#width')).toBe('64');
  await page.fill('#prompt', 'a red star');
  await page.fill('#steps', '6');
  await page.fill('#seed', '3');
  await page.locator('#strength').fill('0.5');
  await page.click('#draw');
  await drawn(1);
  await page.fill('#prompt', 'something else');
  await page.fill('#seed', '99');
  await page.click('#gallery button');
  await shoot('viewer');
  expect(await page.textContent('#view-info')).toContain('Denoising strength: 0.5');
  await page.click('#recall');
  expect(await page.inputValue('#prompt')).toBe('a red star');
  expect(await page.inputValue('#seed')).toBe('3');
  expect(await page.inputValue('#strength')).toBe('0.5');
  await page.click('#gallery button');
  await page.click('#delete');
  await drawn(0);
});

test("a picture's file gives its settings back", async () => {
  const { id } = await server.add({
    prompt: PROMPT,
    seed: 7,
    steps: 3,
    width: 96,
    sampler: 'DPM++ 2M',
    scheduler: 'karras',
  });
  expect((await server.ended(id)).state).toBe('completed');
  const buffer = Buffer.from(await (await server.fetch(`/jobs/${id}/pictures/0`)).arrayBuffer());
  await page.setInputFiles('#info-file', { name: 'drawn.png', mimeType: 'image/png', buffer });
  await page.waitForSelector('#info-recall:not([hidden])');
  await page.click('#info-recall');
  const values = await Promise.all(
    ['prompt', 'steps', 'seed', 'width', 'sampler'].map((id) => page.inputValue(`#${id}`)),
  );
  expect(values).toEqual([PROMPT, '3', '7', '96', 'DPM++ 2M']);
});

test('an error is said, and drawing goes on after it', async () => {
  await page.fill('#prompt', 'x');
  await page.evaluate(() => {
    document.querySelector<HTMLInputElement>('#width')!.step = '1';
    document.querySelector<HTMLInputElement>('#width')!.value = '65';
  });
  await page.click('#draw');
  await page.waitForFunction(() => document.querySelector('#error')?.textContent?.includes('multiple of 4'));
  expect(await page.getAttribute('#error', 'role')).toBe('alert');
  await shoot('error');
  await page.fill('#width', '64');
  await page.fill('#steps', '2');
  await page.click('#draw');
  await drawn(1);
  expect(await page.textContent('#error')).toBe('');
});

test('every optimisation of attention can be chosen, and is used', async () => {
  const names = await page
    .locator('#attention option')
    .evaluateAll((all) => all.map((each) => (each as HTMLOptionElement).value));
  const webUi = ['none', 'doggettx', 'xformers', 'sdp', 'sdp-no-mem', 'sub-quadratic', 'split-v1', 'invokeai'];
  expect(names).toEqual(expect.arrayContaining(webUi));
  await page.evaluate(() => {
    for (const part of document.querySelectorAll('details')) part.open = true;
  });
  await page.fill('#prompt', 'x');
  await page.fill('#steps', '2');
  await page.selectOption('#attention', 'split-v1');
  await page.fill('#token_merging_ratio', '0.5');
  await page.fill('#negative_guidance_min_sigma', '1.5');
  await shoot('advanced');
  await page.click('#draw');
  await drawn(1);
  await page.click('#gallery button');
  const info = await page.textContent('#view-info');
  expect(info).toContain('split-v1');
  expect(info).toContain('Token merging ratio: 0.5');
  expect(info).toContain('NGMS: 1.5');
});

test('what the model cannot do is not offered', async () => {
  const { models } = await server.get<{ models: { capabilities: { fields: string[]; tasks: string[] } }[] }>(
    '/capabilities',
  );
  const { fields, tasks } = models[0]!.capabilities;
  for (const field of ['negative_prompt', 'strength', 'lora', 'control_image', 'hires', 'eta']) {
    const shown = await page
      .locator(`[data-field=${field}]`)
      .first()
      .evaluate((part) => !(part as HTMLElement).hidden);
    expect([field, shown]).toEqual([field, fields.includes(field)]);
  }
  const brush = await page.locator('#mask').evaluate((part) => !(part as HTMLElement).hidden);
  expect(brush).toBe(tasks.includes('inpaint'));
});

test('a narrow window has no sideways scrolling, every control has a name, and Tab reaches the button', async () => {
  await page.setViewportSize({ width: 360, height: 740 });
  await shoot('narrow');
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
  const unnamed = await page.evaluate(() =>
    [...document.querySelectorAll<HTMLInputElement>('input, select, textarea, button')]
      .filter((part) => !part.labels?.length && !part.ariaLabel && !part.textContent?.trim())
      .map((part) => part.outerHTML),
  );
  expect(unnamed).toEqual([]);
  await page.focus('#prompt');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Tab');
  expect(await page.evaluate(() => document.activeElement?.id)).toBe('draw');
});

test('the queue is visible, also that of others', async () => {
  const { id } = await server.add({ prompt: 'long work', steps: 60, n: 3 });
  await page.waitForFunction(() => document.querySelector('#queue')?.textContent?.includes('long work'));
  await page.click('#queue button');
  const job = await server.ended(id);
  expect(job.state).toBe('cancelled');
});

test('the page is one file without a stranger in it', () => {
  const html = readFileSync('src/server/page/index.html', 'utf8');
  expect(html).not.toMatch(/https?:\/\//);
});
