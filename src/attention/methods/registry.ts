import type { AttentionMethod, AttentionMethodOptions } from './attention_method.js';
import { ClassicAttention } from './classic.js';
import { DoggettxAttention } from './doggettx.js';
import { InvokeaiAttention } from './invokeai.js';
import { MemoryEfficientAttention, SdpNoMemAttention } from './memory_efficient.js';
import { type AttentionName, type AttentionOptions, type AttentionSetting, resolveAttention } from './options.js';
import { AutoAttention, SdpAttention } from './sdp.js';
import { SlicedAttention, SplitV1Attention } from './sliced.js';
import { SubQuadraticAttention } from './sub_quadratic.js';

/** How each method is made for a layer of that many heads. */
const METHODS: Readonly<Record<AttentionName, (options: AttentionMethodOptions, heads: number) => AttentionMethod>> = {
  classic: (options) => new ClassicAttention(options),
  sliced: (options, heads) => new SlicedAttention(heads, options),
  'split-v1': (options) => new SplitV1Attention(options),
  doggettx: (options) => new DoggettxAttention(options),
  invokeai: (options) => new InvokeaiAttention(options),
  'sub-quadratic': (options) => new SubQuadraticAttention(options),
  'memory-efficient': (options) => new MemoryEfficientAttention(options),
  sdp: (options) => new SdpAttention(options),
  'sdp-no-mem': (options) => new SdpNoMemAttention(options),
  auto: (options) => new AutoAttention(options),
};

/**
 * The method of a setting for a layer of that many heads.
 *
 * @throws InvalidArgumentError for a name that is not known, options out of range, and slices of more heads than there are
 */
export function createAttentionMethod(setting: AttentionSetting | AttentionOptions, heads: number): AttentionMethod {
  const options = resolveAttention(setting);
  return METHODS[options.name](options, heads);
}
