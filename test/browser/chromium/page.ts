import { open, stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';
import { type Browser, chromium, type Page } from 'playwright-core';
import { buildPage } from '../../../examples/browser/build.mjs';

const CHROMIUM = process.env.TFJS_DIFFUSERS_CHROMIUM ?? '/usr/bin/chromium';
const DIRECTORY = 'build/browser';
const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css',
  '.js': 'text/javascript',
  '.wasm': 'application/wasm',
  '.json': 'application/json',
};

/** Answers as any web server does, with ranges. */
async function serve({ url = '/', method, headers }: IncomingMessage, response: ServerResponse): Promise<void> {
  const name = decodeURIComponent(new URL(url, 'http://localhost').pathname);
  const path = join(DIRECTORY, name === '/' ? 'index.html' : name);
  const stats = await stat(path).catch(() => undefined);
  if (!stats?.isFile()) {
    response.writeHead(404).end();
    return;
  }
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '') ?? [];
  const start = Number(first ?? 0);
  const end = last ? Number(last) : stats.size - 1;
  const range = first === undefined ? {} : { 'Content-Range': `bytes ${start}-${end}/${stats.size}` };
  const type = TYPES[extname(path)] ?? 'application/octet-stream';
  response.writeHead(first === undefined ? 200 : 206, {
    'Content-Type': type,
    'Content-Length': end - start + 1,
    ...range,
  });
  if (method === 'HEAD' || stats.size === 0) {
    response.end();
    return;
  }
  const file = await open(path);
  file.createReadStream({ start, end }).pipe(response);
}

/** The example page in Chromium, and what it complained of. */
export interface OpenPage {
  browser: Browser;
  page: Page;
  complaints: string[];
  close(): Promise<void>;
}

function listen(): Promise<Server> {
  const server = createServer((request, response) => void serve(request, response));
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

/** Builds the page and opens it; WebGPU is SwiftShader's, in software. */
export async function openPage({ webgpu = true } = {}): Promise<OpenPage> {
  await buildPage(DIRECTORY);
  const server = await listen();
  const gpu = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--use-angle=swiftshader'];
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', ...(webgpu ? gpu : ['--disable-gpu'])],
    timeout: 0,
  });
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
  page.setDefaultTimeout(0);
  const complaints: string[] = [];
  const failure = new Promise<never>((_, reject) => page.once('pageerror', reject));
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  await Promise.race([page.locator('#draw:enabled').waitFor(), failure]);
  failure.catch(() => undefined); // later ones are complaints
  const close = async (): Promise<void> => {
    await browser.close();
    server.closeAllConnections();
    server.close();
  };
  return { browser, page, complaints, close };
}

/** Fills the form; names are those of its fields. */
export async function fillForm(page: Page, settings: Record<string, string>): Promise<void> {
  for (const [name, value] of Object.entries(settings)) {
    const field = page.locator(`[name="${name}"]`);
    if ((await field.evaluate((element) => element.tagName)) === 'SELECT') {
      await field.selectOption(value);
    } else {
      await field.fill(value);
    }
  }
}

/** Presses Draw and waits until the page is done, whatever came of it; the words of its status line. */
export async function drawPicture(page: Page): Promise<string> {
  await page.locator('#draw').click();
  await page.locator('#draw:enabled').waitFor();
  return (await page.locator('#status').textContent()) ?? '';
}

/** The bytes of the newest picture's file. */
export async function newestFile(page: Page): Promise<Uint8Array> {
  const bytes = await page.locator('#gallery li:first-child img').evaluate(async (image) => {
    const blob = await (await fetch((image as HTMLImageElement).src)).arrayBuffer();
    return Array.from(new Uint8Array(blob));
  });
  return Uint8Array.from(bytes);
}
