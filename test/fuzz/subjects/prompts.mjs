// Prompts and tokenizer options in both syntaxes.
import { CLIPTokenizer } from '../../../dist/index.js';
import { parsePromptAttention } from '../../../dist/pipelines/common/prompt_syntax.js';

export async function setUp() {
  return { tokenizer: await CLIPTokenizer.fromPretrained('weights/tiny-shapes/tokenizer') };
}

const PIECES = [
  '(',
  ')',
  '[',
  ']',
  ':1.3)',
  ':',
  'BREAK',
  ' AND ',
  'a red circle',
  '\\(',
  '<|endoftext|>',
  '<|startoftext|>',
];

export function trial(random, { tokenizer }) {
  const piece = () => (random.chance(0.5) ? random.of(PIECES) : random.text(4));
  const text = random
    .list(random.integer(0, 40), piece)
    .join('')
    .repeat(random.of([1, 1, 1, 1, 2000]));
  parsePromptAttention(text);
  tokenizer.encode(text, random.chance(0.1) ? random.damageJson({ addSpecialTokens: true }) : undefined);
}
