export * from './attention/index.js';
export {
  type BackendDescription,
  type BackendName,
  describeBackends,
  type MemoryInfo,
  type PhysicalType,
  pickBackend,
  registerBackends,
} from './backends/index.js';
export { type BackendTraits, type FreeMemory, freeMemory, traits } from './backends/traits.js';
export * from './errors.js';
export * from './images/index.js';
export { resolvePretrained } from './loaders/hub/hub.js';
export { openSafetensors, openStateDict, writeSafetensors } from './loaders/safetensors/index.js';
export * from './models/index.js';
export {
  type Adapter,
  FullDelta,
  type Layer,
  LowRankDelta,
  type Parameter,
  type WeightChange,
} from './nn/index.js';
export * from './ops/index.js';
export * from './pipelines/index.js';
export * from './schedulers/index.js';
export * from './tokenizers/index.js';
export { setWarningHandler } from './utils/logging.js';
export { randnTensor } from './utils/randn_tensor.js';
export { TorchGenerator } from './utils/torch_generator.js';
