import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import type { Tokenizer } from '../../tokenizers/types.js';
import { describe, is } from '../../utils/check.js';
import { withoutLoraTags } from './lora_tags.js';

/** A part of a prompt and how much attention it gets; 1 is neutral. ['BREAK', -1] starts a new chunk. */
export type WeightedText = [text: string, weight: number];

/** Tokens of one pass of the text encoder: start, up to 75 of the prompt, end, padding. */
export interface PromptChunk {
  /** `tokenizer.modelMaxLength` ids (77 for CLIP). */
  ids: number[];
  /** One weight per id; 1 for start, end and padding. */
  weights: number[];
}

/** Brackets in brackets; a weight of 1.1 ** 256 is past all use. */
const MAX_NESTING = 256;
/** Passes of the text encoder that one prompt may take. */
const MAX_CHUNKS = 1000;
const ROUND = 1.1;
const SQUARE = 1 / 1.1;
const BREAK: WeightedText = ['BREAK', -1];

/** An escaped bracket or backslash, a lone backslash, a bracket, a weight that closes a bracket, or plain text. */
const PARTS = /\\[()[\]\\]|[\\()[\]]|:\s*([+-]?[.\d]+)\s*\)|[^\\()[\]:]+|:/g;
const BREAK_WORD = /(?<![\p{L}\p{N}_])BREAK(?![\p{L}\p{N}_])/u;

/**
 * Reads a prompt as stable-diffusion-webui (AUTOMATIC1111) does: `(text)` is weighted 1.1, `[text]` 1/1.1,
 * `(text:1.3)` 1.3; brackets nest and multiply; `\(` `\)` `\[` `\]` `\\` stand for the characters themselves; brackets
 * left open end with the prompt; closing ones without an opening one are text. The word BREAK outside of brackets gives
 * ['BREAK', -1], taking the whitespace around it; inside of brackets it is a word like others, because the bracket's
 * weight changes its -1. Neighbours of equal weight are joined.
 *
 * @throws InvalidArgumentError for a weight that is no number, such as `(text:1.2.3)`.
 */
export function parsePromptAttention(prompt: string): WeightedText[] {
  const parts: WeightedText[] = [];
  const open = { '(': [] as number[], '[': [] as number[] };
  /** Adds to the last part where no bracket lies between, so that brackets around much text have few parts to weight. */
  const add = ([text, weight]: WeightedText) => {
    const last = parts.at(-1);
    const isNeighbour = open['('].at(-1) !== parts.length && open['['].at(-1) !== parts.length;
    if (last && isNeighbour && weight === 1 && last[1] === 1) {
      last[0] += text;
    } else {
      parts.push([text, weight]);
    }
  };
  const close = (from = 0, factor: number) => {
    for (let i = from; i < parts.length; i++) {
      parts[i]![1] *= factor;
    }
  };

  for (const match of prompt.matchAll(PARTS)) {
    const [part, weight] = match;
    if (part === '(' || part === '[') {
      open[part].push(parts.length);
      checkNesting(open['('].length + open['['].length);
    } else if (weight !== undefined && open['('].length > 0) {
      close(open['('].pop(), parseWeight(weight, prompt));
    } else if (part === ')' && open['('].length > 0) {
      close(open['('].pop(), ROUND);
    } else if (part === ']' && open['['].length > 0) {
      close(open['['].pop(), SQUARE);
    } else if (part.startsWith('\\')) {
      add([part.slice(1), 1]);
    } else {
      splitAtBreaks(part).forEach(add);
    }
  }
  for (const from of open['(']) {
    close(from, ROUND);
  }
  for (const from of open['[']) {
    close(from, SQUARE);
  }

  const joined = joinEqual(parts);
  return joined.length > 0 ? joined : [['', 1]];
}

function checkNesting(depth: number): void {
  if (depth > MAX_NESTING) {
    throw new InvalidArgumentError(
      `[prompt] brackets expect at most ${MAX_NESTING} open at a time, got more; write \\( and \\) for plain brackets`,
    );
  }
}

function checkChunks(count: number, size: number): void {
  if (count >= MAX_CHUNKS) {
    throw new InvalidArgumentError(
      `[prompt] the text expects at most ${MAX_CHUNKS} chunks of ${size} tokens, got more; shorten it`,
    );
  }
}

/** Neighbours of equal weight as one. */
function joinEqual(parts: readonly WeightedText[]): WeightedText[] {
  const joined: WeightedText[] = [];
  for (const [text, weight] of parts) {
    const last = joined.at(-1);
    if (last !== undefined && last[1] === weight) {
      last[0] += text;
    } else {
      joined.push([text, weight]);
    }
  }
  return joined;
}

function splitAtBreaks(text: string): WeightedText[] {
  const pieces = text.split(BREAK_WORD);
  return pieces.flatMap((piece, i): WeightedText[] => {
    const start = i === 0 ? piece : piece.trimStart();
    const trimmed = i === pieces.length - 1 ? start : start.trimEnd();
    return i === 0 ? [[trimmed, 1]] : [[...BREAK], [trimmed, 1]];
  });
}

function parseWeight(text: string, prompt: string): number {
  const weight = Number(text);
  if (!is.number(weight)) {
    throw new InvalidArgumentError(
      `[prompt] a weight expects a number, as in (text:1.3), got ${describe(text)} in ${describe(prompt)}; write \\( and \\) for plain brackets`,
    );
  }
  return weight;
}

export interface WeightedPromptOptions {
  /**
   * When a chunk is full, text after a comma among its last tokens moves to the next one whole; how many tokens back the
   * comma may be, the webui's `comma_padding_backtrack`. Default 20; 0 cuts anywhere.
   */
  commaPaddingBacktrack?: number;
}

/**
 * Makes the tokens of a prompt of any length in the webui's syntax, in chunks of 75 with start, end and padding around
 * each. A chunk ends when it is full (at a comma if there is one near), at BREAK, and with the prompt; an empty prompt
 * is one chunk. The chunks go through the text encoder one by one, their embeddings through `applyEmphasis`, and then
 * follow one another along the token axis.
 */
export function tokenizeWeightedPrompt(
  tokenizer: Tokenizer,
  prompt: string,
  options: WeightedPromptOptions = {},
): { chunks: PromptChunk[] } {
  const { commaPaddingBacktrack: backtrack = 20 } = options;
  const size = tokenizer.modelMaxLength - 2;
  const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
  const [comma, ...more] = encode(',');
  const isComma = (id: number) => id === comma && more.length === 0;

  const chunks: PromptChunk[] = [];
  let ids: number[] = [];
  let weights: number[] = [];
  let lastComma = -1;
  /** Ends the chunk after its first `length` tokens; the rest begins the next one. */
  const endChunk = (length = ids.length) => {
    checkChunks(chunks.length, size);
    chunks.push(makeChunk(tokenizer, ids.slice(0, length), weights.slice(0, length)));
    ids = ids.slice(length);
    weights = weights.slice(length);
    lastComma = -1;
  };

  for (const [text, weight] of parsePromptAttention(withoutLoraTags(prompt))) {
    if (text === BREAK[0] && weight === BREAK[1]) {
      endChunk();
      continue;
    }
    for (const id of encode(text)) {
      if (ids.length === size) {
        const movable = !isComma(id) && lastComma !== -1 && size - lastComma <= backtrack;
        endChunk(movable ? lastComma + 1 : size);
      } else if (isComma(id)) {
        lastComma = ids.length;
      }
      ids.push(id);
      weights.push(weight);
    }
  }
  if (ids.length > 0 || chunks.length === 0) {
    endChunk();
  }
  return { chunks };
}

function makeChunk(tokenizer: Tokenizer, ids: number[], weights: number[]): PromptChunk {
  const { modelMaxLength: length, bosTokenId, eosTokenId, padTokenId } = tokenizer;
  const all = [bosTokenId, ...ids, eosTokenId];
  // An end token written in the prompt ends it: the webui pads from the first one on.
  const end = all.indexOf(eosTokenId) + 1;
  const kept = padTokenId === eosTokenId ? all : all.slice(0, end);
  return {
    ids: [...kept, ...new Array<number>(length - kept.length).fill(padTokenId)],
    weights: [1, ...weights, ...new Array<number>(length - 1 - weights.length).fill(1)],
  };
}

/**
 * Brings prompts that go through the model together to the same number of chunks, adding chunks of the empty prompt
 * as the webui does.
 */
export function padPromptChunks(tokenizer: Tokenizer, prompts: readonly PromptChunk[][]): PromptChunk[][] {
  const count = Math.max(0, ...prompts.map((chunks) => chunks.length));
  return prompts.map((chunks) => [
    ...chunks,
    ...Array.from({ length: count - chunks.length }, () => makeChunk(tokenizer, [], [])),
  ]);
}

/**
 * Weights the text encoder's output as the webui's "Original" emphasis does: every token's embedding is multiplied by its
 * weight, then each chunk is scaled so that the mean of all its numbers is what it was. With all weights 1 the numbers
 * stay as they are. (The webui takes the mean over all prompts of a batch; here it is each chunk's own, so that a
 * picture does not depend on what is drawn beside it. For one prompt the two are the same.)
 *
 * @param embeddings [chunks, tokens, D] float32, kept.
 * @param weights [chunks, tokens].
 * @returns a new tensor [chunks, tokens, D].
 */
export function applyEmphasis(
  embeddings: tf.Tensor3D,
  weights: readonly (readonly number[])[] | tf.Tensor2D,
): tf.Tensor3D {
  return tf.tidy(() => {
    const [chunks, tokens] = embeddings.shape;
    const factors = weights instanceof tf.Tensor ? weights : tf.tensor2d(weights as number[][]);
    if (factors.shape[0] !== chunks || factors.shape[1] !== tokens) {
      throw new InvalidArgumentError(
        `[applyEmphasis] weights expect the shape [${chunks}, ${tokens}] of the embeddings, got [${factors.shape}]`,
      );
    }
    const weighted = tf.mul(embeddings, tf.expandDims(factors, 2));
    const scale = tf.div(tf.mean(embeddings, [1, 2], true), tf.mean(weighted, [1, 2], true));
    return tf.mul(weighted, scale);
  });
}
