import type { Tensor, Tensor1D, Tensor2D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { Embedding, Linear, type Weights } from '../../nn/index.js';
import { timestepEmbedding } from '../../ops/index.js';
import { TimestepEmbedding } from '../blocks/embeddings.js';
import type { UNetConfig } from './unet_2d_condition_config.js';
import { timeDimOf } from './unet_plan.js';

/** What a UNet is told beside the time and the prompt. */
export interface UNetConditions {
  /** [B], or [B, dim] with class_embed_type 'projection', 'simple_projection' or 'identity'. */
  classLabels?: Tensor;
  /** Guidance embedding of distilled models, [B, time_cond_proj_dim]. */
  timestepCond?: Tensor2D;
  /** addition_embed_type 'text_time': pooled text embeddings [B, D] and time ids [B, 6]. */
  addedCond?: { textEmbeds: Tensor2D; timeIds: Tensor2D };
}

/** The embedding of time, class and sizes, which every resnet gets; shared with ControlNets. */
export class UNetConditioning {
  private readonly timeEmbedding: TimestepEmbedding;
  private readonly classEmbedding: Embedding | TimestepEmbedding | Linear | null;
  private readonly addEmbedding: TimestepEmbedding | null;

  /** @param where names the model in errors */
  constructor(
    w: Weights,
    private readonly config: UNetConfig,
    private readonly where: string,
  ) {
    const timeDim = timeDimOf(config);
    this.timeEmbedding = new TimestepEmbedding(w.at('time_embedding'), config.blockOutChannels[0]!, timeDim, {
      condProjDim: config.timeCondProjDim,
      postAct: config.timestepPostAct !== null,
    });
    this.classEmbedding = classEmbedding(w.at('class_embedding'), config, timeDim);
    this.addEmbedding = config.additionEmbedType
      ? new TimestepEmbedding(w.at('add_embedding'), config.projectionClassEmbeddingsInputDim!, timeDim)
      : null;
  }

  /**
   * @param timestep one for all, or a tensor [B]
   * @returns [B, tembChannels]
   * @throws InvalidArgumentError when a condition is missing that the model needs
   */
  forward(batch: number, timestep: number | Tensor1D, conditions: UNetConditions): Tensor2D {
    const times = typeof timestep === 'number' ? tf.fill<tf.Rank.R1>([batch], timestep) : timestep;
    const temb = this.timeEmbedding.forward(
      this.sinusoids(times, this.config.blockOutChannels[0]!),
      conditions.timestepCond,
    );
    return this.withSizes(this.withClass(temb, conditions), batch, conditions);
  }

  private sinusoids(times: Tensor1D, dim: number): Tensor2D {
    const { flipSinToCos, freqShift } = this.config;
    return timestepEmbedding(times, { dim, flipSinToCos, downscaleFreqShift: freqShift });
  }

  private withClass(temb: Tensor2D, { classLabels }: UNetConditions): Tensor2D {
    const { config } = this;
    if (!config.classEmbedType && !this.classEmbedding) {
      return temb;
    }
    if (!classLabels) {
      throw new InvalidArgumentError(`[${this.where}] this model needs classLabels, one per sample`);
    }
    const dim = config.blockOutChannels[0]!;
    const labels = config.classEmbedType === 'timestep' ? this.sinusoids(classLabels as Tensor1D, dim) : classLabels;
    const embedded = (this.classEmbedding ? this.classEmbedding.forward(labels as Tensor2D) : labels) as Tensor2D;
    return config.classEmbeddingsConcat ? tf.concat([temb, embedded], 1) : tf.add(temb, embedded);
  }

  private withSizes(temb: Tensor2D, batch: number, { addedCond }: UNetConditions): Tensor2D {
    if (!this.addEmbedding) {
      return temb;
    }
    if (!addedCond) {
      throw new InvalidArgumentError(`[${this.where}] this model needs addedCond: {textEmbeds, timeIds}`);
    }
    const ids = this.sinusoids(tf.reshape(addedCond.timeIds, [-1]), this.config.additionTimeEmbedDim!);
    const all = tf.concat([addedCond.textEmbeds, tf.reshape(ids, [batch, -1])], 1) as Tensor2D;
    return tf.add(temb, this.addEmbedding.forward(all));
  }
}

function classEmbedding(
  w: Weights,
  config: UNetConfig,
  timeDim: number,
): Embedding | TimestepEmbedding | Linear | null {
  switch (config.classEmbedType) {
    case 'timestep':
      return new TimestepEmbedding(w, config.blockOutChannels[0]!, timeDim);
    case 'projection':
      return new TimestepEmbedding(w, config.projectionClassEmbeddingsInputDim!, timeDim);
    case 'simple_projection':
      return new Linear(w, config.projectionClassEmbeddingsInputDim!, timeDim);
    case 'identity':
      return null;
    case null:
      return config.numClassEmbeds === null ? null : new Embedding(w, config.numClassEmbeds, timeDim);
  }
}
