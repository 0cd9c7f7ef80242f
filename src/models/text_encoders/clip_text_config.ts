import { choice, count, flag, integer, number, optional, readConfig } from '../../config/fields.js';
import { ConfigError } from '../../errors.js';
import { invalid } from '../../utils/check.js';
import { MAX_CHANNELS, MAX_LAYERS } from '../config_limits.js';
import type { ConfigJson } from '../model.js';

/** transformers' CLIPTextConfig with its defaults. */
const FIELDS = {
  vocab_size: count(49408, 10_000_000),
  hidden_size: count(512, MAX_CHANNELS),
  intermediate_size: count(2048, 4 * MAX_CHANNELS),
  num_hidden_layers: count(12, MAX_LAYERS),
  num_attention_heads: count(8, MAX_CHANNELS),
  max_position_embeddings: count(77, MAX_CHANNELS),
  hidden_act: choice('quick_gelu', ['quick_gelu', 'gelu']),
  layer_norm_eps: number(1e-5, { min: 0 }),
  eos_token_id: integer(49407),
  projection_dim: count(512, MAX_CHANNELS),
  /** Whether padding is hidden from the text; diffusers reads it from a text encoder's configuration. */
  use_attention_mask: flag(false),
  pad_token_id: optional(integer(1)),
  bos_token_id: optional(integer(49406)),
};

/** What transformers writes beside what the model computes: training, generation and its own records. */
const SILENT = [
  'architectures attention_dropout dropout dtype gradient_checkpointing initializer_factor initializer_range',
  'logit_scale_init_value model_type torch_dtype transformers_version use_cache',
  'add_cross_attention bad_words_ids begin_suppress_tokens chunk_size_feed_forward cross_attention_hidden_size',
  'decoder_start_token_id diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size',
  'exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id id2label is_decoder',
  'is_encoder_decoder label2id length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams',
  'num_return_sequences output_attentions output_hidden_states output_scores prefix problem_type pruned_heads',
  'remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens',
  'task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p',
  'torchscript typical_p use_bfloat16',
].flatMap((line) => line.split(' '));

/** Checks a text encoder's config.json, or the text_config in that of a whole CLIP model. */
export function parseCLIPTextConfig(json: ConfigJson, source: string) {
  const values = readConfig(source, FIELDS, SILENT, json.text_config ?? json);
  if (values.hiddenSize % values.numAttentionHeads !== 0) {
    const expected = `a divisor of hidden_size ${values.hiddenSize}`;
    throw invalid(source, 'num_attention_heads', expected, values.numAttentionHeads, ConfigError);
  }
  return values;
}

/** Checked configuration of a CLIPTextModel. */
export type CLIPTextConfig = ReturnType<typeof parseCLIPTextConfig>;
