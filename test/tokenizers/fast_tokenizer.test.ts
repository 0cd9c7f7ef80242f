import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { CheckpointError } from '../../src/errors.js';
import { FastTokenizer } from '../../src/tokenizers/fast_tokenizer.js';

const { tokenizer, texts, ids, decoded } = JSON.parse(await readFile('test/fixtures/tokenizers/unigram.json', 'utf8'));

test("a tokenizer.json of T5's kind gives the ids of Python's tokenizers", async () => {
  const dir = await mkdtemp(join(tmpdir(), 'tokenizer-'));
  const path = join(dir, 'tokenizer.json');
  await writeFile(path, JSON.stringify(tokenizer));
  const fast = await FastTokenizer.fromFile(path);
  expect(texts.map((text: string) => fast.encode(text))).toEqual(ids);
  expect(ids.map((each: number[]) => fast.decode(each, true))).toEqual(decoded);
  expect([fast.idOf('</s>'), fast.idOf('▁star'), fast.idOf('none')]).toEqual([1, 14, undefined]);
  for (const text of ['[]', '{}', '{"model": 1}', '{"model": {}, "added_tokens": {}}']) {
    await writeFile(path, text);
    await expect(FastTokenizer.fromFile(path)).rejects.toThrow(CheckpointError);
  }
  await expect(FastTokenizer.fromFile(join(dir, 'none'))).rejects.toThrow(CheckpointError);
  await rm(dir, { recursive: true });
});
