export { openStateDict } from './checkpoint_files.js';
export { openSafetensors, SafetensorsFile } from './safetensors_file.js';
export { type SafetensorsEntry, writeSafetensors } from './safetensors_writer.js';
