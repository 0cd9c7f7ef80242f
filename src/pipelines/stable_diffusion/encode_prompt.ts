import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { CLIPTextModel } from '../../models/index.js';
import type { Tokenizer } from '../../tokenizers/index.js';
import { expectThat, invalid, is } from '../../utils/check.js';
import type { Prompt } from '../common/callable.js';
import type { Branch, ConditioningTensors } from '../common/conditioning.js';
import { type Check, type Checks, choice } from '../common/options.js';
import { applyEmphasis, padPromptChunks, tokenizeWeightedPrompt } from '../common/prompt_syntax.js';

/** 'a1111': (emphasis:1.3), [less], BREAK and prompts of any length; 'diffusers': the text as it is. */
export type PromptSyntax = 'diffusers' | 'a1111';

/** Options of calls about their texts. */
export interface PromptOptions {
  /** What to leave out of the picture; one for all prompts or one each. Used with guidanceScale > 1. */
  negativePrompt?: string | readonly string[];
  /** Text embeddings instead of prompts, [prompts, tokens, D]. They stay the caller's. */
  promptEmbeds?: Tensor3D;
  negativePromptEmbeds?: Tensor3D;
  /** Layers of the text encoder to leave out at the end, for the prompt (with 'a1111' for the negative prompt, too). */
  clipSkip?: number;
  /** How prompts are read: 'diffusers' (default) takes them as they are, cut at 77 tokens; 'a1111' as the web UI does. */
  promptSyntax?: PromptSyntax;
}

export const TEXTS: Check = [(value) => [value].flat().every(is.string), 'a string or a list of strings'];
export const EMBEDS: Check = [(value) => is.tensor(value) && value.rank === 3, 'a tensor [prompts, tokens, channels]'];

export const PROMPT_CHECKS: Checks<PromptOptions> = {
  negativePrompt: TEXTS,
  promptEmbeds: EMBEDS,
  negativePromptEmbeds: EMBEDS,
  clipSkip: [is.whole, 'a whole number of layers'],
  promptSyntax: choice(['diffusers', 'a1111']),
};

export interface EncodePromptInputs extends PromptOptions {
  prompt?: Prompt;
  /** Pictures per prompt. */
  numImagesPerPrompt: number;
  /** Whether the unconditional half is needed. */
  guidance: boolean;
}

/** Number of prompts that the inputs stand for. */
export function promptCount({ prompt, promptEmbeds }: EncodePromptInputs): number {
  return promptEmbeds ? (promptEmbeds.shape?.[0] ?? 0) : typeof prompt === 'string' ? 1 : (prompt?.length ?? 0);
}

/** Each of [P, ...] `count` times in a row. */
export function repeatEach<T extends Tensor>(x: T, count: number): T {
  const [prompts, ...rest] = x.shape;
  const times = [1, count, ...rest.map(() => 1)];
  return count === 1 ? x : (tf.reshape(tf.tile(tf.expandDims(x, 1), times), [prompts! * count, ...rest]) as T);
}

/** Text embeddings by branch of guidance, each [B, tokens, D]. */
export type PromptEmbeddings = Partial<Record<Branch, ConditioningTensors>>;

/**
 * Text embeddings of the prompts (StableDiffusionPipeline.encode_prompt), after `checkPrompts`.
 *
 * @param where class for error messages
 * @returns the branches unconditional (when guidance is on) and conditional; new tensors
 * @throws InvalidArgumentError when embeddings of prompt and negative prompt have different shapes
 */
export function encodePrompt(
  where: string,
  tokenizer: Tokenizer,
  textEncoder: CLIPTextModel,
  inputs: EncodePromptInputs,
): PromptEmbeddings {
  const { prompt, negativePrompt = '', promptEmbeds, negativePromptEmbeds, guidance } = inputs;
  const prompts = promptCount(inputs);
  const list = (text: string | readonly string[]) =>
    typeof text === 'string' ? new Array<string>(prompts).fill(text) : text;
  const positive = promptEmbeds ?? list(prompt!);
  const negative = guidance ? (negativePromptEmbeds ?? list(negativePrompt)) : null;
  const encode = inputs.promptSyntax === 'a1111' ? encodeWebuiSyntax : encodePlain;
  const halves = tf.tidy(() => {
    const encoded = encode(where, tokenizer, textEncoder, { positive, negative }, inputs.clipSkip);
    const [first, second = first] = encoded;
    expectThat(
      `${first!.shape}` === `${second!.shape}`,
      where,
      'negative prompt',
      `embeddings of the prompt's shape [${second!.shape}]`,
      first,
    );
    return encoded.map((half) => tf.clone(repeatEach(half, inputs.numImagesPerPrompt)));
  });
  const [conditional, unconditional] = halves.reverse();
  return {
    ...(unconditional && { unconditional: { encoderHiddenStates: unconditional } }),
    conditional: { encoderHiddenStates: conditional! },
  };
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
  where: string,
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
  const { maxPositionEmbeddings } = textEncoder.parsed;
  if (areTexts(negative) && tokens > maxPositionEmbeddings) {
    const expected = `at most ${maxPositionEmbeddings} tokens, as many as a negative prompt gets; give negativePromptEmbeds of the same shape`;
    throw invalid(where, 'promptEmbeds', expected, tokens);
  }
  return [embed(negative, tokens), conditional];
}

/** Texts in the web UI's syntax, with as many tokens as the longest text's chunks have. */
function encodeWebuiSyntax(
  _where: string,
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
export function checkPrompts(where: string, inputs: EncodePromptInputs): void {
  const { prompt, negativePrompt, promptEmbeds, negativePromptEmbeds } = inputs;
  const both = prompt !== undefined && promptEmbeds !== undefined;
  expectThat(!both, where, 'prompt', 'to be left out where promptEmbeds are given', prompt);
  if (promptEmbeds === undefined) {
    expectThat(TEXTS[0](prompt), where, 'prompt', 'a string or a list of strings (or promptEmbeds)', wrongText(prompt));
  }
  const twice = negativePrompt !== undefined && negativePromptEmbeds !== undefined;
  expectThat(!twice, where, 'negativePrompt', 'to be left out where negativePromptEmbeds are given', negativePrompt);
  const prompts = promptCount(inputs);
  expectThat(prompts > 0, where, 'prompt', 'at least one text', prompt ?? promptEmbeds);
  const fits = !Array.isArray(negativePrompt) || negativePrompt.length === prompts;
  expectThat(fits, where, 'negativePrompt', `one for all or one for each of the ${prompts} prompts`, negativePrompt);
}

/** The item of a list that is no text, or the value itself. */
function wrongText(value: unknown): unknown {
  return Array.isArray(value) ? value.find((item) => !is.string(item)) : value;
}
