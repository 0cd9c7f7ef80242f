/** Layers of the middle: diffusers' names and the original ones (ldm/modules/diffusionmodules/model.py). */
const MIDDLE: readonly (readonly [ours: string, original: string])[] = [
  ['mid_block.resnets.0', 'mid.block_1'],
  ['mid_block.attentions.0', 'mid.attn_1'],
  ['mid_block.resnets.1', 'mid.block_2'],
  ['conv_norm_out', 'norm_out'],
];

/** Layers of attention. */
const ATTENTION: readonly (readonly [ours: RegExp, original: string])[] = [
  [/\.group_norm\./, '.norm.'],
  [/\.to_(q|k|v)\./, '.$1.'],
  [/\.to_out\.0\./, '.proj_out.'],
];

const BLOCK = /^(down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)$/;
const KINDS: Readonly<Record<string, string>> = { downsamplers: 'downsample', upsamplers: 'upsample' };

/** The original names of an AutoencoderKL's tensors, by rules over diffusers' paths. The decoder counts from the end. */
export class VaeNames {
  private readonly upBlocks: number;

  /** @param paths of all tensors of the VAE */
  constructor(paths: readonly string[]) {
    this.upBlocks =
      Math.max(-1, ...paths.map((path) => Number(/^decoder\.up_blocks\.(\d+)\./.exec(path)?.[1] ?? -1))) + 1;
  }

  /** The original name of a path; undefined for one that is no VAE's. */
  of(path: string): string | undefined {
    const [, side, rest] = /^(encoder|decoder)\.(.+)$/.exec(path) ?? [];
    if (side === undefined || rest === undefined) {
      return /^(post_)?quant_conv\./.test(path) ? path : undefined;
    }
    return `${side}.${this.within(rest).replace('.conv_shortcut.', '.nin_shortcut.')}`;
  }

  private within(path: string): string {
    const block = BLOCK.exec(path);
    if (block) {
      const [, side, index, kind, place, rest] = block as unknown as [
        string,
        'down' | 'up',
        string,
        string,
        string,
        string,
      ];
      const number = side === 'down' ? Number(index) : this.upBlocks - 1 - Number(index);
      return `${side}.${number}.${kind === 'resnets' ? `block.${place}` : KINDS[kind]}.${rest}`;
    }
    const [ours, original] = MIDDLE.find(([ours]) => path.startsWith(`${ours}.`)) ?? ['', ''];
    const named = original + path.slice(ours.length);
    return ours.includes('attentions') ? ATTENTION.reduce((name, [from, to]) => name.replace(from, to), named) : named;
  }
}
