import type { Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import type { CLIPTextModel } from '../models/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { applyEmphasis, padPromptChunks, tokenizeWeightedPrompt } from './prompt_syntax.js';

/** 'a1111': (emphasis:1.3), [less], BREAK and prompts of any length; 'diffusers': the text as it is. */
export type PromptSyntax = 'diffusers' | 'a1111';

export interface EncodePromptInputs {
  prompt?: string | readonly string[];
  negativePrompt?: string | readonly string[];
  promptEmbeds?: Tensor3D;
  negativePromptEmbeds?: Tensor3D;
  numImagesPerPrompt: number;
  /** Whether the unconditional half is needed. */
  guidance: boolean;
  clipSkip?: number;
  promptSyntax?: PromptSyntax;
}

/** Number of prompts that the inputs stand for. */
export function promptCount({ prompt, promptEmbeds }: EncodePromptInputs): number {
  return promptEmbeds ? promptEmbeds.shape[0] : typeof prompt === 'string' ? 1 : (prompt?.length ?? 0);
}

/** Each of [P, N, D] `count` times in a row. */
function repeatEach(x: Tensor3D, count: number): Tensor3D {
  const [prompts, tokens, size] = x.shape;
  return count === 1 ? x : tf.reshape(tf.tile(tf.expandDims(x, 1), [1, count, 1, 1]), [prompts * count, tokens, size]);
}

/**
 * Text embeddings of the prompts (StableDiffusionPipeline.encode_prompt).
 *
 * @returns [2B, tokens, D] with the negative half first when guidance is on, else [B, tokens, D]
 * @throws InvalidArgumentError when prompts and negative prompts do not go together
 */
export function encodePrompt(tokenizer: Tokenizer, textEncoder: CLIPTextModel, inputs: EncodePromptInputs): Tensor3D {
  checkInputs(inputs);
  const { prompt, negativePrompt = '', promptEmbeds, negativePromptEmbeds, numImagesPerPrompt, guidance } = inputs;
  const prompts = promptCount(inputs);
  const list = (text: string | readonly string[]) => (typeof text === 'string' ? new Array(prompts).fill(text) : text);
  const given = [
    guidance ? (negativePromptEmbeds ?? list(negativePrompt)) : null,
    promptEmbeds ?? list(prompt!),
  ].filter((half) => half !== null);
  return tf.tidy(() => {
    // both halves are encoded together: in the web UI's syntax the longer one decides how many chunks there are
    const texts = given.filter((half): half is string[] => Array.isArray(half)).flat();
    const encoded = texts.length > 0 ? embedTexts(tokenizer, textEncoder, texts, inputs) : null;
    let taken = 0;
    const halves = given.map((half) => {
      if (!Array.isArray(half)) {
        return half as Tensor3D;
      }
      const [, tokens, size] = encoded!.shape;
      taken += prompts;
      return tf.slice(encoded!, [taken - prompts, 0, 0], [prompts, tokens, size]);
    });
    if (halves.length === 2 && `${halves[0]!.shape}` !== `${halves[1]!.shape}`) {
      throw new InvalidArgumentError(
        `[StableDiffusionPipeline] the embeddings of prompt [${halves[1]!.shape}] and negative prompt ` +
          `[${halves[0]!.shape}] must have one shape`,
      );
    }
    return tf.concat(
      halves.map((half) => repeatEach(half, numImagesPerPrompt)),
      0,
    );
  });
}

/** [texts, tokens, D]; with the web UI's syntax as many tokens as the longest text's chunks have. */
function embedTexts(
  tokenizer: Tokenizer,
  textEncoder: CLIPTextModel,
  texts: readonly string[],
  { clipSkip, promptSyntax }: EncodePromptInputs,
): Tensor3D {
  if (promptSyntax === 'a1111') {
    const prompts = padPromptChunks(
      tokenizer,
      texts.map((text) => tokenizeWeightedPrompt(tokenizer, text).chunks),
    );
    const chunks = prompts.flat();
    const { lastHiddenState } = textEncoder.forward(
      chunks.map((chunk) => chunk.ids),
      { clipSkip },
    );
    const weighted = applyEmphasis(
      lastHiddenState,
      chunks.map((chunk) => chunk.weights),
    );
    return tf.reshape(weighted, [texts.length, -1, weighted.shape[2]]);
  }
  const { inputIds, attentionMask } = tokenizer.tokenize(texts, { padding: 'max_length', truncation: true });
  const mask = textEncoder.parsed.useAttentionMask ? attentionMask : undefined;
  return textEncoder.forward(inputIds, { clipSkip, attentionMask: mask }).lastHiddenState;
}

function checkInputs(inputs: EncodePromptInputs): void {
  const { prompt, negativePrompt, promptEmbeds, negativePromptEmbeds } = inputs;
  const fail = (message: string): never => {
    throw new InvalidArgumentError(`[StableDiffusionPipeline] ${message}`);
  };
  if ((prompt === undefined) === (promptEmbeds === undefined)) {
    fail('give either a prompt or promptEmbeds');
  }
  if (negativePrompt !== undefined && negativePromptEmbeds) {
    fail('give either negativePrompt or negativePromptEmbeds, not both');
  }
  const texts = [prompt ?? [], negativePrompt ?? []].flat() as unknown[];
  if (texts.some((text) => typeof text !== 'string')) {
    fail('prompts must be strings or lists of strings');
  }
  const prompts = promptCount(inputs);
  if (prompts === 0) {
    fail('expects at least one prompt, got an empty list');
  }
  if (Array.isArray(negativePrompt) && negativePrompt.length !== prompts) {
    fail(`expects one negative prompt for all or one for each of the ${prompts} prompts, got ${negativePrompt.length}`);
  }
}
