import type { Tensor2D, Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { CLIPTextModel } from '../../models/index.js';
import type { Tokenizer } from '../../tokenizers/index.js';
import { expectThat, is } from '../../utils/check.js';
import type { ConditioningTensors } from '../common/conditioning.js';
import type { Check, Checks } from '../common/options.js';
import { applyEmphasis, padPromptChunks, tokenizeWeightedPrompt } from '../common/prompt_syntax.js';
import {
  checkPrompts,
  type EncodePromptInputs,
  PROMPT_CHECKS,
  type PromptEmbeddings,
  type PromptOptions,
  promptCount,
  repeatEach,
  TEXTS,
} from '../stable_diffusion/encode_prompt.js';

/** Options of calls about their texts. */
export interface XLPromptOptions extends PromptOptions {
  /** Text for the second text encoder. Default: the prompt. */
  prompt2?: string | readonly string[];
  /** Default: the negative prompt. */
  negativePrompt2?: string | readonly string[];
  /** State of the whole prompt, [prompts, D], beside `promptEmbeds`. It stays the caller's. */
  pooledPromptEmbeds?: Tensor2D;
  negativePooledPromptEmbeds?: Tensor2D;
}

const POOLED: Check = [(value) => is.tensor(value) && value.rank === 2, 'a tensor [prompts, channels]'];

export const XL_PROMPT_CHECKS: Checks<XLPromptOptions> = {
  ...PROMPT_CHECKS,
  prompt2: TEXTS,
  negativePrompt2: TEXTS,
  pooledPromptEmbeds: POOLED,
  negativePooledPromptEmbeds: POOLED,
};

export interface XLEncodePromptInputs extends Omit<EncodePromptInputs, keyof PromptOptions>, XLPromptOptions {
  /** Whether no negative prompt is zeros, not the empty text. */
  forceZeros: boolean;
}

/** A text encoder with the tokenizer that it was trained with. */
export interface TextEncoder {
  tokenizer: Tokenizer;
  model: CLIPTextModel;
}

/** What a text, or its embeddings, comes to. */
interface Encoded {
  /** [P, tokens, D]. */
  states: Tensor3D;
  /** [P, D]. */
  pooled: Tensor2D;
}

/** Texts of one branch: a list for each encoder. */
type Texts = readonly (readonly string[])[];

/**
 * @returns the number of prompts
 * @throws InvalidArgumentError when prompts, negative prompts and embeddings do not go together
 */
export function checkXLPrompts(where: string, inputs: XLEncodePromptInputs, encoders: number): number {
  checkPrompts(where, inputs);
  const { prompt2, negativePrompt2, promptEmbeds, negativePromptEmbeds } = inputs;
  const { pooledPromptEmbeds: pooled, negativePooledPromptEmbeds: negativePooled } = inputs;
  const expectWith = (name: string, value: unknown, usable: boolean, expected: string) =>
    expectThat(usable, where, name, expected, value);
  expectWith('prompt2', prompt2, !(prompt2 && promptEmbeds), 'to be left out where promptEmbeds are given');
  const both = negativePrompt2 && negativePromptEmbeds;
  expectWith('negativePrompt2', negativePrompt2, !both, 'to be left out where negativePromptEmbeds are given');
  expectWith('pooledPromptEmbeds', pooled, !promptEmbeds === !pooled, 'to come together with promptEmbeds');
  const paired = !negativePromptEmbeds === !negativePooled;
  expectWith('negativePooledPromptEmbeds', negativePooled, paired, 'to come together with negativePromptEmbeds');
  expectWith('promptEmbeds', promptEmbeds, encoders > 0 || Boolean(promptEmbeds), 'to be given without text encoders');
  const prompts = promptCount(inputs);
  for (const [name, list] of Object.entries({ prompt2, negativePrompt2 })) {
    const fits = !Array.isArray(list) || list.length === prompts;
    expectWith(name, list, fits, `one for all or one for each of the ${prompts} prompts`);
  }
  return prompts;
}

/**
 * Text embeddings of the prompts (StableDiffusionXLPipeline.encode_prompt), after `checkXLPrompts`: the penultimate layers
 * of all text encoders side by side, and the pooled state of the last one.
 *
 * @returns the branches unconditional (when guidance is on) and conditional; new tensors
 */
export function encodeXLPrompt(
  where: string,
  encoders: readonly TextEncoder[],
  inputs: XLEncodePromptInputs,
): PromptEmbeddings {
  const branches = tf.tidy(() => {
    const { conditional, unconditional } = encodeBranches(encoders, inputs);
    const given = unconditional ? [unconditional, conditional] : [conditional];
    const same = given.every(({ states }) => `${states.shape}` === `${conditional.states.shape}`);
    const expected = `embeddings of the prompt's shape [${conditional.states.shape}]`;
    expectThat(same, where, 'negative prompt', expected, unconditional?.states);
    return given.map(({ states, pooled }) => ({
      encoderHiddenStates: tf.clone(repeatEach(states, inputs.numImagesPerPrompt)),
      pooled: tf.clone(repeatEach(pooled, inputs.numImagesPerPrompt)),
    }));
  }) as ConditioningTensors[];
  const [conditional, unconditional] = branches.reverse();
  return { ...(unconditional && { unconditional }), conditional: conditional! };
}

function encodeBranches(
  encoders: readonly TextEncoder[],
  inputs: XLEncodePromptInputs,
): { conditional: Encoded; unconditional?: Encoded } {
  const { prompt, prompt2 = prompt, negativePrompt, negativePrompt2 = negativePrompt, guidance } = inputs;
  const list = (text: string | readonly string[]) =>
    typeof text === 'string' ? new Array<string>(promptCount(inputs)).fill(text) : text;
  // the refiner's one encoder takes the first prompt
  const texts = (first: string | readonly string[], second: string | readonly string[]): Texts =>
    [list(first), list(second)].slice(0, encoders.length);
  const { promptEmbeds, pooledPromptEmbeds, negativePromptEmbeds, negativePooledPromptEmbeds } = inputs;
  const positive = promptEmbeds ? { states: promptEmbeds, pooled: pooledPromptEmbeds! } : texts(prompt!, prompt2!);
  const given = negativePromptEmbeds && { states: negativePromptEmbeds, pooled: negativePooledPromptEmbeds! };
  const zeros = !given && negativePrompt === undefined && inputs.forceZeros;
  const negative = guidance && !zeros ? (given ?? texts(negativePrompt ?? '', negativePrompt2 ?? '')) : undefined;
  const encode = inputs.promptSyntax === 'a1111' ? encodeWebuiSyntax : encodePlain;
  const encoded = encode(encoders, positive, negative, inputs.clipSkip ?? 0);
  return guidance && zeros ? { ...encoded, unconditional: zerosLike(encoded.conditional) } : encoded;
}

const zerosLike = ({ states, pooled }: Encoded): Encoded => ({
  states: tf.zerosLike(states),
  pooled: tf.zerosLike(pooled),
});

type Half = Texts | Encoded;
const isEncoded = (half: Half): half is Encoded => 'states' in half;

/** Texts as they are; as in diffusers, layers are skipped for the prompt alone. */
function encodePlain(
  encoders: readonly TextEncoder[],
  positive: Half,
  negative: Half | undefined,
  clipSkip: number,
): { conditional: Encoded; unconditional?: Encoded } {
  const encode = (half: Half, skip: number, maxLength?: number): Encoded =>
    isEncoded(half)
      ? half
      : join(
          encoders.map(({ tokenizer, model }, i) => {
            const length = maxLength ?? tokenizer.modelMaxLength;
            const options = { padding: 'max_length', truncation: true, maxLength: length } as const;
            const { inputIds } = tokenizer.tokenize(half[i]!, options);
            const { hiddenState, pooled } = model.forward(inputIds, { hiddenSkip: 1 + skip });
            return { states: hiddenState, pooled };
          }),
        );
  const conditional = encode(positive, clipSkip);
  return negative ? { conditional, unconditional: encode(negative, 0, conditional.states.shape[1]) } : { conditional };
}

/** The states of several encoders side by side, and the pooled state of the last one. */
function join(parts: readonly Encoded[]): Encoded {
  const states = parts.map((part) => part.states);
  return { states: states.length === 1 ? states[0]! : tf.concat(states, 2), pooled: parts.at(-1)!.pooled };
}

/** Texts in the web UI's syntax; all get as many chunks of tokens as the longest has, and the first one's pooled state. */
function encodeWebuiSyntax(
  encoders: readonly TextEncoder[],
  positive: Half,
  negative: Half | undefined,
  clipSkip: number,
): { conditional: Encoded; unconditional?: Encoded } {
  const halves = negative ? [positive, negative] : [positive];
  const all = halves.flatMap((half) => (isEncoded(half) ? [] : half.flat()));
  const byEncoder = encoders.map(({ tokenizer, model }) => {
    const prompts = all.map((text) => tokenizeWeightedPrompt(tokenizer, text).chunks);
    const padded = padPromptChunks(tokenizer, prompts);
    return new Map(all.map((text, i) => [text, encodeChunks(model, padded[i]!, clipSkip)]));
  });
  const encode = (half: Half): Encoded =>
    isEncoded(half)
      ? half
      : join(
          half.map((texts, i) => {
            const parts = texts.map((text) => byEncoder[i]!.get(text)!);
            return {
              states: tf.concat(
                parts.map(({ states }) => states),
                0,
              ),
              pooled: tf.concat(
                parts.map(({ pooled }) => pooled),
                0,
              ),
            };
          }),
        );
  return { conditional: encode(positive), ...(negative && { unconditional: encode(negative) }) };
}

type Chunks = ReturnType<typeof padPromptChunks>[number];

/** One text: [1, tokens of all chunks, D], and the first chunk's pooled state [1, D]. */
function encodeChunks(model: CLIPTextModel, chunks: Chunks, clipSkip: number): Encoded {
  const ids = chunks.map((chunk) => chunk.ids);
  const { hiddenState, pooled } = model.forward(ids, { hiddenSkip: 1 + clipSkip });
  const weighted = applyEmphasis(
    hiddenState,
    chunks.map(({ weights }) => weights),
  );
  const states = tf.reshape(weighted, [1, -1, weighted.shape[2]]) as Tensor3D;
  return { states, pooled: tf.slice(pooled, 0, 1) };
}
