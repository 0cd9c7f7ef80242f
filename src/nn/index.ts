export { Conv2d } from './conv2d.js';
export { Embedding } from './embedding.js';
export { initRandom } from './init.js';
export { Linear } from './linear.js';
export { type LoadOptions, loadStateDict, matchStateDict } from './load_state_dict.js';
export { GroupNorm, LayerNorm } from './norm.js';
export { type Initializer, type Layout, Parameter } from './parameter.js';
export { WeightStore } from './weight_store.js';
export { Weights } from './weights.js';
