import type { Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import type { CLIPTextModel } from '../models/index.js';
import type { Tokenizer } from '../tokenizers/index.js';

export interface EncodePromptInputs {
  prompt?: string | readonly string[];
  negativePrompt?: string | readonly string[];
  promptEmbeds?: Tensor3D;
  negativePromptEmbeds?: Tensor3D;
  numImagesPerPrompt: number;
  /** Whether the unconditional half is needed. */
  guidance: boolean;
  clipSkip?: number;
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
  const embed = (texts: readonly string[]): Tensor3D => {
    const { inputIds, attentionMask } = tokenizer.tokenize(texts, { padding: 'max_length', truncation: true });
    const mask = textEncoder.parsed.useAttentionMask ? attentionMask : undefined;
    return textEncoder.forward(inputIds, { clipSkip: inputs.clipSkip, attentionMask: mask }).lastHiddenState;
  };
  const list = (text: string | readonly string[]) => (typeof text === 'string' ? new Array(prompts).fill(text) : text);
  return tf.tidy(() => {
    const positive = repeatEach(promptEmbeds ?? embed(list(prompt!)), numImagesPerPrompt);
    if (!guidance) {
      return tf.clone(positive);
    }
    const negative = repeatEach(negativePromptEmbeds ?? embed(list(negativePrompt)), numImagesPerPrompt);
    return tf.concat([negative, positive], 0);
  });
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
  if (promptEmbeds && negativePromptEmbeds && `${promptEmbeds.shape}` !== `${negativePromptEmbeds.shape}`) {
    fail(
      `promptEmbeds [${promptEmbeds.shape}] and negativePromptEmbeds [${negativePromptEmbeds.shape}] must have one shape`,
    );
  }
}
