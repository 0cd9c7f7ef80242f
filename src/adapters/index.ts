export type { FuseLoraOptions, LoraOptions, LoraRecord } from './lora/lora.js';
export type { LoraComponent } from './lora/lora_names.js';
export type { BlockWeights, LoraWeight, ModelWeight } from './lora/lora_weights.js';
export type { TextualInversionOptions, TextualInversionRecord } from './textual_inversion.js';
