export { openStateDict } from '../checkpoint_files.js';
export { openSafetensors, SafetensorsFile } from './file.js';
export type { SafetensorsHeader, TensorEntry } from './header.js';
export { type SafetensorsEntry, writeSafetensors } from './writer.js';
