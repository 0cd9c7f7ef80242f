/** Layers outside of the blocks: diffusers' names and those of the original code (ldm/modules/diffusionmodules/openaimodel.py). */
const LAYERS: readonly (readonly [ours: string, original: string])[] = [
  ['time_embedding.linear_1', 'time_embed.0'],
  ['time_embedding.linear_2', 'time_embed.2'],
  ['time_embedding.cond_proj', 'time_embed.cond_proj'],
  ['add_embedding.linear_1', 'label_emb.0.0'],
  ['add_embedding.linear_2', 'label_emb.0.2'],
  ['class_embedding.linear_1', 'label_emb.0.0'],
  ['class_embedding.linear_2', 'label_emb.0.2'],
  ['conv_in', 'input_blocks.0.0'],
  ['conv_norm_out', 'out.0'],
  ['conv_out', 'out.2'],
];

/** Layers of a ResNet block. */
const RESNET: Readonly<Record<string, string>> = {
  norm1: 'in_layers.0',
  conv1: 'in_layers.2',
  time_emb_proj: 'emb_layers.1',
  norm2: 'out_layers.0',
  conv2: 'out_layers.3',
  conv_shortcut: 'skip_connection',
};

const BLOCK = /^(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)$/;
const MID = /^mid_block\.(resnets|attentions)\.(\d+)\.(.+)$/;

/**
 * The original names of a UNet's layers and tensors, by rules over diffusers' paths. The original has one list of input
 * blocks and one of output blocks, numbered through; an entry holds a ResNet block, the attention after it, and in the
 * output what enlarges the map. (diffusers/loaders/single_file_utils.py goes the other way.)
 */
export class UNetNames {
  /** Number of ResNet blocks by block: 'down_blocks.0'. */
  private readonly resnets = new Map<string, number>();
  /** Blocks with attention. */
  private readonly attentions = new Set<string>();

  /** @param paths of all layers or tensors of the UNet */
  constructor(paths: Iterable<string>) {
    for (const path of paths) {
      const [, side, block, kind, index] = BLOCK.exec(path) ?? [];
      const name = `${side}_blocks.${block}`;
      if (kind === 'resnets') {
        this.resnets.set(name, Math.max(this.resnets.get(name) ?? 0, Number(index) + 1));
      } else if (kind === 'attentions') {
        this.attentions.add(name);
      }
    }
  }

  /** The original name of a path; undefined for one that is no UNet's. */
  of(path: string): string | undefined {
    const mid = MID.exec(path);
    if (mid) {
      const [, kind, index, rest] = mid as unknown as [string, string, string, string];
      return kind === 'resnets' ? `middle_block.${2 * Number(index)}.${resnetName(rest)}` : `middle_block.1.${rest}`;
    }
    const block = BLOCK.exec(path);
    if (block) {
      const [, side, index, kind, place, rest] = block as unknown as [string, string, string, string, string, string];
      return side === 'down'
        ? this.inputName(Number(index), kind, Number(place), rest)
        : this.outputName(Number(index), kind, Number(place), rest);
    }
    const layer = LAYERS.find(([ours]) => path === ours || path.startsWith(`${ours}.`));
    return layer && layer[1] + path.slice(layer[0].length);
  }

  /** Each block has its ResNet blocks and one entry that makes the map smaller; entry 0 is conv_in. */
  private inputName(block: number, kind: string, place: number, rest: string): string {
    const first = 1 + this.countBefore('down', block) + block;
    if (kind === 'downsamplers') {
      const entry = first + (this.resnets.get(`down_blocks.${block}`) ?? 0);
      return `input_blocks.${entry}.0.${rest.replace(/^conv\b/, 'op')}`;
    }
    return `input_blocks.${first + place}.${inEntry(kind, rest)}`;
  }

  private outputName(block: number, kind: string, place: number, rest: string): string {
    const first = this.countBefore('up', block);
    if (kind === 'upsamplers') {
      const entry = first + (this.resnets.get(`up_blocks.${block}`) ?? 0) - 1;
      return `output_blocks.${entry}.${this.attentions.has(`up_blocks.${block}`) ? 2 : 1}.${rest}`;
    }
    return `output_blocks.${first + place}.${inEntry(kind, rest)}`;
  }

  private countBefore(side: string, block: number): number {
    let count = 0;
    for (let i = 0; i < block; i++) {
      count += this.resnets.get(`${side}_blocks.${i}`) ?? 0;
    }
    return count;
  }
}

const inEntry = (kind: string, rest: string) => (kind === 'resnets' ? `0.${resnetName(rest)}` : `1.${rest}`);

function resnetName(rest: string): string {
  const [layer = '', ...more] = rest.split('.');
  return [RESNET[layer] ?? layer, ...more].join('.');
}
