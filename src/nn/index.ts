export { type Adapter, FullDelta, LowRankDelta, type WeightChange } from './adapter.js';
export { Conv2d } from './conv2d.js';
export { Embedding } from './embedding.js';
export { initRandom } from './init.js';
export { Layer } from './layer.js';
export { Linear } from './linear.js';
export { GroupNorm, LayerNorm } from './norm.js';
export { type Initializer, type Layout, Parameter } from './parameter.js';
export { type ParameterOptions, Weights } from './weights.js';
