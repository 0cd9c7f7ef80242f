import { type AttentionClassOptions, CrossAttention } from '../layers/cross_attention.js';
import type { AttentionProjections } from '../layers/projections.js';
import { AutoAttention } from './auto_attention.js';
import { DoggettxAttention } from './doggettx_attention.js';
import { InvokeaiAttention } from './invokeai_attention.js';
import { MemoryEfficientCrossAttention } from './memory_efficient_cross_attention.js';
import { type AttentionName, type AttentionOptions, resolveAttention } from './options.js';
import { SdpAttention } from './sdp_attention.js';
import { SdpNoMemAttention } from './sdp_no_mem_attention.js';
import { SlicedAttention } from './sliced_attention.js';
import { SplitV1Attention } from './split_v1_attention.js';
import { SubQuadraticAttention } from './sub_quadratic_attention.js';

type AttentionClass = new (projections: AttentionProjections, options?: AttentionClassOptions) => CrossAttention;

const CLASSES: Readonly<Record<AttentionName, AttentionClass>> = {
  classic: CrossAttention,
  sliced: SlicedAttention,
  'split-v1': SplitV1Attention,
  doggettx: DoggettxAttention,
  invokeai: InvokeaiAttention,
  'sub-quadratic': SubQuadraticAttention,
  'memory-efficient': MemoryEfficientCrossAttention,
  sdp: SdpAttention,
  'sdp-no-mem': SdpNoMemAttention,
  auto: AutoAttention,
};

/** Classes whose originals replace the UNet's attention only; the VAE then computes as 'classic'. */
const UNET_ONLY: ReadonlySet<AttentionName> = new Set<AttentionName>(['sliced', 'split-v1', 'invokeai']);

/** Builds the chosen attention over the given weights, for the UNet or for the VAE's middle block. */
export function createAttention(
  setting: AttentionName | AttentionOptions,
  projections: AttentionProjections,
  place: 'unet' | 'vae' = 'unet',
): CrossAttention {
  const options = resolveAttention(setting);
  const name = place === 'vae' && UNET_ONLY.has(options.name) ? 'classic' : options.name;
  return new CLASSES[name](projections, { ...options, place });
}
