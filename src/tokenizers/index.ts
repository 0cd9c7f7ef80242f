export { type AsTokenizerOptions, asTokenizer, type TransformersJsTokenizer } from './as_tokenizer.js';
export { CLIPTokenizer, type CLIPTokenizerOptions } from './clip_tokenizer.js';
export type { TokenizerFiles } from './tokenizer_files.js';
export {
  type AddedToken,
  buildTokenizerJson,
  type TokenizerJson,
  type TokenizerJsonOptions,
} from './tokenizer_json.js';
export type { DecodeOptions, EncodeOptions, TokenizedBatch, TokenizeOptions, Tokenizer } from './types.js';
