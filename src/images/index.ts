export { checkImagePath, type EncodeOptions, GeneratedImage, type ImageFormat, imageFormatOf } from './image.js';
export {
  a1111Parameters,
  type GenerationParameters,
  PARAMETERS_KEY,
  type ParsedParameters,
  parseParameters,
  readParameters,
} from './parameters.js';
