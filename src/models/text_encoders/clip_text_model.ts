import type { Tensor2D, Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import {
  type AttentionLayer,
  type AttentionMethod,
  type AttentionName,
  type AttentionOptions,
  type AttentionPlace,
  createAttentionMethod,
  MemoryEfficientAttention,
} from '../../attention/index.js';
import { physicalTypeOf, toPhysicalType } from '../../backends/precision.js';
import { InvalidArgumentError } from '../../errors.js';
import { Embedding, LayerNorm, Linear, Weights } from '../../nn/index.js';
import { attentionShape } from '../../ops/attention/score_matrix.js';
import { invalid } from '../../utils/check.js';
import {
  type ConfigJson,
  type FromConfigOptions,
  type LoadModelOptions,
  loadModel,
  Model,
  type ModelOptions,
  modelFromConfig,
} from '../model.js';
import { type CLIPTextConfig, parseCLIPTextConfig } from './clip_text_config.js';

/**
 * 'auto' is memory-efficient attention here, on every backend: the scores of a prompt are small. Slices that are made for
 * the UNet's number of heads take all heads of a text encoder that has fewer.
 */
function textMethod(options: AttentionOptions, heads: number): AttentionMethod {
  const { name, sliceSize } = options;
  if (name === 'auto') {
    return new MemoryEfficientAttention(options);
  }
  const fitting = typeof sliceSize === 'number' ? Math.min(sliceSize, heads) : sliceSize;
  return createAttentionMethod({ ...options, sliceSize: fitting }, heads);
}

/** Causal self-attention (transformers' CLIPAttention). */
class CLIPAttention implements AttentionLayer, AttentionPlace {
  private readonly q: Linear;
  private readonly k: Linear;
  private readonly v: Linear;
  private readonly out: Linear;
  private method: AttentionMethod;
  taken: AttentionName | null = null;

  constructor(
    w: Weights,
    size: number,
    private readonly heads: number,
    attention: AttentionOptions,
  ) {
    this.q = new Linear(w.at('q_proj'), size, size);
    this.k = new Linear(w.at('k_proj'), size, size);
    this.v = new Linear(w.at('v_proj'), size, size);
    this.out = new Linear(w.at('out_proj'), size, size);
    this.method = this.methodFor(attention);
  }

  methodFor(options: AttentionOptions): AttentionMethod {
    return textMethod(options, this.heads);
  }

  setMethod(method: AttentionMethod): void {
    this.method = method;
    this.taken = null;
  }

  forward(x: Tensor3D, bias: tf.Tensor, residual: Tensor3D): Tensor3D {
    const { heads } = this;
    const [q, k, v] = [this.q.forward(x), this.k.forward(x), this.v.forward(x)];
    const method = this.method.choose(attentionShape(q, k, heads));
    this.taken = method.attentionName;
    const scale = 1 / Math.sqrt(x.shape[2] / heads);
    return this.out.forward(method.attend({ q, k, v, bias, heads, scale }), { residual });
  }
}

class CLIPEncoderLayer {
  readonly attention: CLIPAttention;
  private readonly norm1: LayerNorm;
  private readonly norm2: LayerNorm;
  private readonly fc1: Linear;
  private readonly fc2: Linear;

  constructor(
    w: Weights,
    private readonly config: CLIPTextConfig,
    attention: AttentionOptions,
  ) {
    const { hiddenSize: size, layerNormEps: eps } = config;
    this.norm1 = new LayerNorm(w.at('layer_norm1'), size, eps);
    this.attention = new CLIPAttention(w.at('self_attn'), size, config.numAttentionHeads, attention);
    this.norm2 = new LayerNorm(w.at('layer_norm2'), size, eps);
    this.fc1 = new Linear(w.at('mlp.fc1'), size, config.intermediateSize);
    this.fc2 = new Linear(w.at('mlp.fc2'), config.intermediateSize, size);
  }

  forward(x: Tensor3D, bias: tf.Tensor): Tensor3D {
    return tf.tidy(() => {
      const first = this.attention.forward(this.norm1.forward(x), bias, x);
      const hidden = this.fc1.forward(this.norm2.forward(first), { activation: this.config.hiddenAct });
      return this.fc2.forward(hidden, { residual: first });
    });
  }
}

export interface CLIPTextOutput {
  /** [B, N, hidden_size], after the final layer norm. */
  lastHiddenState: Tensor3D;
  /** The state at the end-of-text token, [B, hidden_size]; projected where the model has a text projection. */
  pooled: Tensor2D;
  /** Output of the layer before the last ones that were skipped, without the final layer norm. */
  hiddenState: Tensor3D;
}

/** CLIP's text encoder (Radford et al. 2021; transformers' CLIPTextModel and CLIPTextModelWithProjection). */
export class CLIPTextModel extends Model {
  static readonly weightsName: string = 'model';
  static readonly ignoredKeys: RegExp =
    /(^|\.)embeddings\.position_ids$|^logit_scale$|^vision_model\.|^(visual|text)_projection\./;
  static readonly floatSettings: readonly string[] = ['initializer_factor', 'initializer_range', 'layer_norm_eps'];

  readonly parsed: CLIPTextConfig;
  private readonly tokenEmbedding: Embedding;
  /** Embeddings that were added, [hiddenSize] each, by their ids. */
  private readonly added = new Map<number, tf.Tensor1D>();
  private readonly positionEmbedding: Embedding;
  private readonly encoderLayers: CLIPEncoderLayer[];
  private readonly finalLayerNorm: LayerNorm;
  private readonly textProjection: Linear | null;

  constructor(json: ConfigJson, options: ModelOptions & { source?: string; withProjection?: boolean } = {}) {
    const root = Weights.root(options.dtype);
    super(json, root, options);
    const config = parseCLIPTextConfig(json, options.source ?? 'text_encoder/config.json');
    this.parsed = config;
    const w = root.at('text_model', '');
    const embeddings = w.at('embeddings');
    this.tokenEmbedding = new Embedding(embeddings.at('token_embedding'), config.vocabSize, config.hiddenSize);
    this.positionEmbedding = new Embedding(
      embeddings.at('position_embedding'),
      config.maxPositionEmbeddings,
      config.hiddenSize,
    );
    this.encoderLayers = Array.from(
      { length: config.numHiddenLayers },
      (_, i) => new CLIPEncoderLayer(w.at('encoder.layers').at(i), config, this.attention),
    );
    this.finalLayerNorm = new LayerNorm(w.at('final_layer_norm'), config.hiddenSize, config.layerNormEps);
    this.textProjection = options.withProjection
      ? new Linear(root.at('text_projection'), config.hiddenSize, config.projectionDim, { bias: false })
      : null;
  }

  /** Loads a text encoder from a directory with config.json and model.safetensors. */
  static fromPretrained(dir: string, options: LoadModelOptions = {}): Promise<CLIPTextModel> {
    return loadModel(CLIPTextModel, dir, options);
  }

  /** Builds a text encoder from a configuration alone. */
  static fromConfig(config: ConfigJson, options: FromConfigOptions = {}): CLIPTextModel {
    return modelFromConfig(CLIPTextModel, config, options);
  }

  /**
   * Adds embeddings, as textual inversion does; they are not saved.
   *
   * @param vectors the numbers of one or several, hidden_size each
   * @returns ids, past those of the vocabulary
   */
  addEmbeddings(vectors: Float32Array): number[] {
    const { hiddenSize, vocabSize } = this.parsed;
    const first = Math.max(vocabSize - 1, ...this.added.keys()) + 1;
    return Array.from({ length: vectors.length / hiddenSize }, (_, i) => {
      const vector = tf.tensor1d(vectors.slice(i * hiddenSize, (i + 1) * hiddenSize));
      this.added.set(first + i, tf.keep(vector));
      return first + i;
    });
  }

  /** Frees embeddings that were added. */
  removeEmbeddings(ids: readonly number[]): void {
    for (const id of ids) {
      this.added.get(id)?.dispose();
      this.added.delete(id);
    }
  }

  override dispose(): void {
    this.removeEmbeddings([...this.added.keys()]);
    super.dispose();
  }

  /** Embeddings of ids, [B, N, hiddenSize]. */
  private embed(inputIds: number[][]): Tensor3D {
    const shape: [number, number] = [inputIds.length, inputIds[0]!.length];
    const { vocabSize, hiddenSize } = this.parsed;
    const known = inputIds.map((ids) => ids.map((id) => Math.min(id, vocabSize - 1)));
    const tokens = this.tokenEmbedding.forward(tf.tensor2d(known, shape, 'int32')) as Tensor3D;
    const used = [...new Set(inputIds.flat())].filter((id) => this.added.has(id));
    if (used.length === 0) {
      return tokens;
    }
    const places = inputIds.flatMap((ids) => ids.map((id) => used.indexOf(id)));
    const isAdded = tf.tensor(
      places.map((place) => place >= 0),
      [...shape, 1],
      'bool',
    );
    const rows = tf.tensor2d(
      places.map((place) => Math.max(place, 0)),
      shape,
      'int32',
    );
    const vectors = tf.gather(tf.stack(used.map((id) => this.added.get(id)!)), rows);
    return tf.where(
      tf.tile(isAdded, [1, 1, hiddenSize]),
      toPhysicalType(vectors, physicalTypeOf(tokens)),
      tokens,
    ) as Tensor3D;
  }

  override get attentionLayers(): readonly AttentionLayer[] {
    return this.attentionPlaces;
  }

  protected override get attentionPlaces(): readonly CLIPAttention[] {
    return this.encoderLayers.map(({ attention }) => attention);
  }

  /**
   * Encodes token ids.
   *
   * @param inputIds B lists of equal length, at most max_position_embeddings
   * @param options.clipSkip layers to leave out at the end; the final layer norm is applied all the same
   * @param options.hiddenSkip more layers that `hiddenState` alone leaves out (SDXL)
   * @param options.attentionMask like inputIds, 0 hides a token
   * @throws InvalidArgumentError for ids outside the vocabulary, too many tokens or layers to skip
   */
  forward(
    inputIds: number[][],
    options: { clipSkip?: number; hiddenSkip?: number; attentionMask?: number[][] } = {},
  ): CLIPTextOutput {
    const { clipSkip = 0, hiddenSkip = 0, attentionMask } = options;
    this.checkInputs(inputIds, clipSkip + hiddenSkip);
    const [batch, length] = [inputIds.length, inputIds[0]!.length];
    return tf.tidy(() => {
      const tokens = this.embed(inputIds);
      const positions = this.positionEmbedding.forward(tf.range(0, length, 1, 'int32'));
      const bias = attentionBias(batch, length, attentionMask);
      const layers = this.encoderLayers.slice(0, this.encoderLayers.length - clipSkip);
      const states = [tf.add(tokens, positions) as Tensor3D];
      for (const layer of layers) {
        states.push(layer.forward(states.at(-1)!, bias));
      }
      const lastHiddenState = this.finalLayerNorm.forward(states.at(-1)!);
      return {
        lastHiddenState,
        pooled: this.pool(lastHiddenState, inputIds),
        hiddenState: states.at(-1 - hiddenSkip)!,
      };
    });
  }

  private pool(states: Tensor3D, inputIds: number[][]): Tensor2D {
    const [batch, length, size] = states.shape;
    const ends = inputIds.map((ids, i) => i * length + this.endOfText(ids));
    const pooled = tf.gather(tf.reshape(states, [batch * length, size]), tf.tensor1d(ends, 'int32')) as Tensor2D;
    return this.textProjection ? this.textProjection.forward(pooled) : pooled;
  }

  /** Position of the first end-of-text token; configurations written before it was recorded say 2 and mean the largest id. */
  private endOfText(ids: number[]): number {
    const position = this.parsed.eosTokenId === 2 ? ids.indexOf(Math.max(...ids)) : ids.indexOf(this.parsed.eosTokenId);
    return Math.max(position, 0);
  }

  private checkInputs(inputIds: number[][], clipSkip: number): void {
    const { vocabSize, maxPositionEmbeddings, numHiddenLayers } = this.parsed;
    const length = inputIds[0]?.length ?? 0;
    if (length === 0 || length > maxPositionEmbeddings || inputIds.some((ids) => ids.length !== length)) {
      throw new InvalidArgumentError(
        `[CLIPTextModel] expects lists of 1 to ${maxPositionEmbeddings} token ids of equal length, ` +
          `got lengths ${inputIds.map((ids) => ids.length)}`,
      );
    }
    const wrong = inputIds
      .flat()
      .find((id) => !Number.isInteger(id) || id < 0 || (id >= vocabSize && !this.added.has(id)));
    if (wrong !== undefined) {
      throw new InvalidArgumentError(
        `[CLIPTextModel] token id ${wrong} is outside the vocabulary of ${vocabSize}; is it this model's tokenizer?`,
      );
    }
    if (!Number.isInteger(clipSkip) || clipSkip < 0 || clipSkip > numHiddenLayers) {
      throw invalid('CLIPTextModel', 'clipSkip', `an integer from 0 to ${numHiddenLayers}`, clipSkip);
    }
  }
}

/** Hides later tokens, and those that the mask leaves out: [1 or B, 1, N, N]. */
function attentionBias(batch: number, length: number, mask?: number[][]): tf.Tensor {
  const rows = mask ? batch : 1;
  const bias = new Float32Array(rows * length * length);
  for (let b = 0, i = 0; b < rows; b++) {
    for (let query = 0; query < length; query++) {
      for (let key = 0; key < length; key++, i++) {
        bias[i] = key > query || mask?.[b]?.[key] === 0 ? Number.NEGATIVE_INFINITY : 0;
      }
    }
  }
  return tf.tensor(bias, [rows, 1, length, length]);
}
