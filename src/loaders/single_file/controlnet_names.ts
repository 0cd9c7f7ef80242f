import { UNetNames } from './unet_names.js';

const HINT = 'controlnet_cond_embedding';

/** The original names of a ControlNet's tensors (cldm/cldm.py): those of a UNet's first half, and its own. */
export class ControlNetNames {
  private readonly unet: UNetNames;
  /** Number of blocks that make the picture smaller. */
  private readonly hints: number;

  /** @param paths of all layers or tensors of the ControlNet */
  constructor(paths: readonly string[]) {
    this.unet = new UNetNames(paths);
    const blocks = paths.map((path) => Number(/^controlnet_cond_embedding\.blocks\.(\d+)\./.exec(path)?.[1] ?? -1));
    this.hints = Math.max(-1, ...blocks) + 1;
  }

  of(path: string): string | undefined {
    const [, kind, index, rest] =
      /^(controlnet_down_blocks|controlnet_cond_embedding\.blocks)\.(\d+)\.(.+)$/.exec(path) ?? [];
    if (kind === 'controlnet_down_blocks') {
      return `zero_convs.${index}.0.${rest}`;
    }
    if (kind !== undefined) {
      return `input_hint_block.${2 * (Number(index) + 1)}.${rest}`;
    }
    const [ours, original] = this.ends.find(([ours]) => path.startsWith(ours)) ?? [];
    return ours === undefined ? this.unet.of(path) : original + path.slice(ours.length);
  }

  /** What comes before and after those blocks, and the middle. */
  private get ends(): [ours: string, original: string][] {
    return [
      ['controlnet_mid_block.', 'middle_block_out.0.'],
      [`${HINT}.conv_in.`, 'input_hint_block.0.'],
      [`${HINT}.conv_out.`, `input_hint_block.${2 * (this.hints + 1)}.`],
    ];
  }
}
