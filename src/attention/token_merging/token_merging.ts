import type { Tensor3D } from '@tensorflow/tfjs-core';
import { expectThat, is } from '../../utils/check.js';
import { TorchGenerator } from '../../utils/torch_generator.js';
import { MergedTokens } from './merged_tokens.js';

export interface TokenMergingOptions {
  /** Share of the tokens that is merged away, 0 to 1 - 1 / (sx * sy); more than 0.5 costs visible quality. */
  ratio: number;
  /** Only feature maps at most this much smaller than the UNet's input are merged: 1, 2, 4 or 8. Default 1. */
  maxDownsample?: number;
  /** Width and height of the cells of which one token each is a destination. Default 2. */
  sx?: number;
  sy?: number;
  /** The destination is a random token of its cell, else the first one. Odd batches never are random. Default true. */
  useRand?: boolean;
  /** Seed of the random choice; every run with it makes the same choices. Default 0. */
  seed?: number;
  /** Which layers get merged tokens. Default self-attention alone. */
  mergeAttention?: boolean;
  mergeCrossAttention?: boolean;
  mergeMlp?: boolean;
}

/** Height and width in tokens. */
export interface MapSize {
  height: number;
  width: number;
}

/** The merge of one pass through a transformer block, for each of its three layers; null where nothing is merged. */
export interface BlockMerges {
  attention: MergedTokens | null;
  crossAttention: MergedTokens | null;
  mlp: MergedTokens | null;
}

const NOTHING: BlockMerges = { attention: null, crossAttention: null, mlp: null };

function complete(options: TokenMergingOptions): Required<TokenMergingOptions> {
  const all: Required<TokenMergingOptions> = {
    maxDownsample: 1,
    sx: 2,
    sy: 2,
    useRand: true,
    seed: 0,
    mergeAttention: true,
    mergeCrossAttention: false,
    mergeMlp: false,
    ...options,
  };
  expectThat(is.share(all.ratio), 'tokenMerging', 'ratio', 'a number from 0 to 1', all.ratio);
  for (const name of ['maxDownsample', 'sx', 'sy'] as const) {
    expectThat(is.count(all[name]), 'tokenMerging', name, 'a positive integer', all[name]);
  }
  return all;
}

/**
 * Token merging for Stable Diffusion (Bolya & Hoffman 2023) in one transformer block: attention runs on fewer tokens, of
 * which each stands for those that are most alike.
 */
export class TokenMerging {
  readonly options: Readonly<Required<TokenMergingOptions>>;
  private generator: TorchGenerator;

  /** @param layer number of the block, so that each makes other random choices */
  constructor(
    options: TokenMergingOptions,
    private readonly layer = 0,
  ) {
    this.options = complete(options);
    this.generator = this.newGenerator();
  }

  /** Makes the same random choices again from here on. */
  restart(): void {
    this.generator = this.newGenerator();
  }

  /**
   * Random choices of the next pass: the destination's number within each cell of a map of that size, row by row; null
   * where nothing is merged.
   *
   * @param batch number of pictures that get the same choices
   */
  chooseCells(batch: number, size: MapSize, original: MapSize): Int32Array | null {
    const { ratio, maxDownsample, sx, sy, useRand } = this.options;
    const tokens = size.height * size.width;
    const downsample = Math.ceil(Math.sqrt(Math.floor((original.height * original.width) / tokens)));
    const cells = Math.floor(size.height / sy) * Math.floor(size.width / sx);
    if (downsample > maxDownsample || Math.floor(tokens * ratio) === 0 || cells === 0) {
      return null;
    }
    const random = useRand && batch % 2 === 0;
    return random ? this.generator.randint(0, sx * sy, cells) : new Int32Array(cells);
  }

  /**
   * @param x the block's input [B, N, C]
   * @param cells of `chooseCells`
   */
  merges(x: Tensor3D, size: MapSize, cells: Int32Array | null): BlockMerges {
    if (!cells) {
      return NOTHING;
    }
    const { ratio, mergeAttention, mergeCrossAttention, mergeMlp } = this.options;
    const count = Math.floor(x.shape[1] * ratio);
    const tokens = MergedTokens.match(x, this.destinations(size, cells), count);
    return {
      attention: mergeAttention ? tokens : null,
      crossAttention: mergeCrossAttention ? tokens : null,
      mlp: mergeMlp ? tokens : null,
    };
  }

  /** One token of every whole cell; what is left of a map that cells do not divide has sources only. */
  private destinations({ width }: MapSize, cells: Int32Array): number[] {
    const { sx, sy } = this.options;
    const perRow = Math.floor(width / sx);
    const tokens = Array.from(cells, (within, cell) => {
      const row = Math.floor(cell / perRow) * sy + Math.floor(within / sx);
      const column = (cell % perRow) * sx + (within % sx);
      return row * width + column;
    });
    return tokens.sort((a, b) => a - b);
  }

  private newGenerator(): TorchGenerator {
    return new TorchGenerator(this.options.seed + this.layer);
  }
}

/** A transformer block that can merge its tokens. */
export interface MergingBlock {
  tokenMerging: TokenMerging | null;
}

/** A UNet, or a pipeline with one. */
export type MergingModel =
  | { transformerBlocks: readonly MergingBlock[] }
  | { unet: { transformerBlocks: readonly MergingBlock[] } };

function blocksOf(model: MergingModel): readonly MergingBlock[] {
  return 'unet' in model ? model.unet.transformerBlocks : model.transformerBlocks;
}

/**
 * Merges tokens in every transformer block of a UNet, or of a pipeline's UNet, from now on; replaces what was applied
 * before. Faster, and close to the same picture; a ratio of 0 changes nothing at all.
 *
 * @throws InvalidArgumentError for options out of range
 */
export function applyTokenMerging<M extends MergingModel>(model: M, options: TokenMergingOptions): M {
  blocksOf(model).forEach((block, i) => {
    block.tokenMerging = new TokenMerging(options, i);
  });
  return model;
}

/** Takes token merging out again. */
export function removeTokenMerging<M extends MergingModel>(model: M): M {
  for (const block of blocksOf(model)) {
    block.tokenMerging = null;
  }
  return model;
}

/** Lets the random choices begin anew, so that equal seeds give equal pictures. */
export function restartTokenMerging(model: MergingModel): void {
  for (const block of blocksOf(model)) {
    block.tokenMerging?.restart();
  }
}
