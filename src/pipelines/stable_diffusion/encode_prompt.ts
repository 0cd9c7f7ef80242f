import type { Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import type { CLIPTextModel } from '../../models/index.js';
import type { Tokenizer } from '../../tokenizers/index.js';
import { describe } from '../common/pipeline_utils.js';
import { applyEmphasis, padPromptChunks, tokenizeWeightedPrompt } from '../common/prompt_syntax.js';

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
  return promptEmbeds ? (promptEmbeds.shape?.[0] ?? 0) : typeof prompt === 'string' ? 1 : (prompt?.length ?? 0);
}

/** Each of [P, N, D] `count` times in a row. */
function repeatEach(x: Tensor3D, count: number): Tensor3D {
  const [prompts, tokens, size] = x.shape;
  return count === 1 ? x : tf.reshape(tf.tile(tf.expandDims(x, 1), [1, count, 1, 1]), [prompts * count, tokens, size]);
}

/**
 * Text embeddings of the prompts (StableDiffusionPipeline.encode_prompt), after `checkPrompts`.
 *
 * @returns [2B, tokens, D] with the negative half first when guidance is on, else [B, tokens, D]
 * @throws InvalidArgumentError when embeddings of prompt and negative prompt have different shapes
 */
export function encodePrompt(tokenizer: Tokenizer, textEncoder: CLIPTextModel, inputs: EncodePromptInputs): Tensor3D {
  const { prompt, negativePrompt = '', promptEmbeds, negativePromptEmbeds, guidance } = inputs;
  const prompts = promptCount(inputs);
  const list = (text: string | readonly string[]) =>
    typeof text === 'string' ? new Array<string>(prompts).fill(text) : text;
  const positive = promptEmbeds ?? list(prompt!);
  const negative = guidance ? (negativePromptEmbeds ?? list(negativePrompt)) : null;
  const encode = inputs.promptSyntax === 'a1111' ? encodeWebuiSyntax : encodePlain;
  return tf.tidy(() => {
    const halves = encode(tokenizer, textEncoder, { positive, negative }, inputs.clipSkip);
    if (halves.length === 2 && `${halves[0]!.shape}` !== `${halves[1]!.shape}`) {
      throw new InvalidArgumentError(
        `[StableDiffusionPipeline] the embeddings of prompt [${halves[1]!.shape}] and negative prompt ` +
          `[${halves[0]!.shape}] must have one shape`,
      );
    }
    return tf.concat(
      halves.map((half) => repeatEach(half, inputs.numImagesPerPrompt)),
      0,
    );
  });
}

/** Texts, or the embeddings that the caller gave instead. */
type Half = readonly string[] | Tensor3D;
type Halves = { positive: Half; negative: Half | null };

const areTexts = (half: Half): half is readonly string[] => Array.isArray(half);

/**
 * Texts as they are. As in diffusers, layers are skipped for the prompt alone, and a negative prompt gets as many tokens
 * as the prompt's embeddings have.
 */
function encodePlain(
  tokenizer: Tokenizer,
  textEncoder: CLIPTextModel,
  { positive, negative }: Halves,
  clipSkip?: number,
): Tensor3D[] {
  const embed = (half: Half, maxLength: number, skip?: number): Tensor3D => {
    if (!areTexts(half)) {
      return half;
    }
    const { inputIds, attentionMask } = tokenizer.tokenize(half, {
      padding: 'max_length',
      truncation: true,
      maxLength,
    });
    const mask = textEncoder.parsed.useAttentionMask ? attentionMask : undefined;
    return textEncoder.forward(inputIds, { clipSkip: skip, attentionMask: mask }).lastHiddenState;
  };
  const conditional = embed(positive, tokenizer.modelMaxLength, clipSkip);
  if (!negative) {
    return [conditional];
  }
  const tokens = conditional.shape[1];
  if (areTexts(negative) && tokens > textEncoder.parsed.maxPositionEmbeddings) {
    throw new InvalidArgumentError(
      `[StableDiffusionPipeline] promptEmbeds have ${tokens} tokens, more than the text encoder gives to a negative ` +
        `prompt (${textEncoder.parsed.maxPositionEmbeddings}); give negativePromptEmbeds of the same shape`,
    );
  }
  return [embed(negative, tokens), conditional];
}

/** Texts in the web UI's syntax, with as many tokens as the longest text's chunks have. */
function encodeWebuiSyntax(
  tokenizer: Tokenizer,
  textEncoder: CLIPTextModel,
  { positive, negative }: Halves,
  clipSkip?: number,
): Tensor3D[] {
  const given = negative ? [negative, positive] : [positive];
  const texts = given.filter(areTexts).flat();
  if (texts.length === 0) {
    return given as Tensor3D[];
  }
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
  const size = weighted.shape[2];
  const encoded = tf.reshape(weighted, [texts.length, -1, size]) as Tensor3D;
  let taken = 0;
  return given.map((half) => {
    if (!areTexts(half)) {
      return half;
    }
    taken += half.length;
    return tf.slice(encoded, [taken - half.length, 0, 0], [half.length, encoded.shape[1], size]);
  });
}

/** @throws InvalidArgumentError when prompts and negative prompts do not go together */
export function checkPrompts(inputs: EncodePromptInputs): void {
  const { prompt, negativePrompt, promptEmbeds, negativePromptEmbeds } = inputs;
  const fail = (message: string): never => {
    throw new InvalidArgumentError(`[StableDiffusionPipeline] ${message}`);
  };
  if ((prompt === undefined) === (promptEmbeds === undefined)) {
    fail('give either a prompt or promptEmbeds');
  }
  for (const [name, embeds] of Object.entries({ promptEmbeds, negativePromptEmbeds })) {
    if (embeds !== undefined && !(embeds instanceof tf.Tensor && embeds.rank === 3 && !embeds.isDisposed)) {
      fail(`${name} must be a tensor [prompts, tokens, channels], got ${describe(embeds)}`);
    }
  }
  if (negativePrompt !== undefined && negativePromptEmbeds) {
    fail('give either negativePrompt or negativePromptEmbeds, not both');
  }
  const texts = [prompt ?? [], negativePrompt ?? []].flat() as unknown[];
  const wrong = texts.find((text) => typeof text !== 'string');
  if (texts.includes(undefined) || wrong !== undefined) {
    fail(`prompts must be strings or lists of strings, got ${describe(wrong)}`);
  }
  const prompts = promptCount(inputs);
  if (prompts === 0) {
    fail('expects at least one prompt, got an empty list');
  }
  if (Array.isArray(negativePrompt) && negativePrompt.length !== prompts) {
    fail(`expects one negative prompt for all or one for each of the ${prompts} prompts, got ${negativePrompt.length}`);
  }
}
