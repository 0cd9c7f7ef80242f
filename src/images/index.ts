export {
  checkImagePath,
  GeneratedImage,
  type ImageEncodeOptions,
  type ImageFormat,
  imageFormatOf,
  LiveDisplay,
} from './image.js';
export {
  a1111Parameters,
  type GenerationParameters,
  PARAMETERS_KEY,
  type ParsedParameters,
  parseParameters,
  readParameters,
} from './parameters.js';
export type { InputFile } from './read_image.js';
export type { Box } from './resample.js';
