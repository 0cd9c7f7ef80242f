import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import * as f from '../../src/config/fields.js';
import { ConfigError, InvalidArgumentError } from '../../src/errors.js';
import { parseAutoencoderConfig } from '../../src/models/autoencoders/autoencoder_kl_config.js';
import { parseCLIPTextConfig } from '../../src/models/text_encoders/clip_text_config.js';
import { parseUNetConfig } from '../../src/models/unets/unet_2d_condition_config.js';
import { setWarningHandler, type WarningHandler } from '../../src/utils/logging.js';

let warnings: string[];
let previous: WarningHandler;
beforeEach(() => {
  warnings = [];
  previous = setWarningHandler((message) => warnings.push(message));
});
afterEach(() => {
  setWarningHandler(previous);
});

describe('fields', () => {
  const rows: [string, f.Field<unknown>, unknown, unknown][] = [
    ['a number', f.number(1, { min: 0, max: 2 }), 0.5, 0.5],
    ['null for a number', f.number(1), null, 1],
    ['a number too large', f.number(1, { max: 2 }), 3, undefined],
    ['an infinite number', f.number(1), Infinity, undefined],
    ["Python's infinity", f.extendedNumber(0), '-inf', -Infinity],
    ['text for a number', f.extendedNumber(0), 'many', undefined],
    ['a fraction for an integer', f.integer(1), 1.5, undefined],
    ['a count of 0', f.count(1, 9), 0, undefined],
    ['a count too large', f.count(1, 9), 10, undefined],
    ['None for a flag', f.flag(true), null, false],
    ['a number for a flag', f.flag(true), 1, undefined],
    ['a choice', f.choice('a', ['a', 'b']), 'b', 'b'],
    ['an unknown choice', f.choice('a', ['a', 'b']), 'c', undefined],
    ['null where there may be none', f.optional(f.count(1, 9), 3), null, null],
    ['a typed array for a list', f.list(f.number(0), [], 3), Float32Array.of(1, 2), [1, 2]],
    ['a list too long', f.list(f.number(0), [], 2), [1, 2, 3], undefined],
    ['an empty list', f.list(f.number(0), [1], 2), [], undefined],
    ['an empty list that may be', f.list(f.number(0), [1], 2, 0), [], []],
    ['null in a list', f.list(f.number(0), [], 2), [null], undefined],
    ['text for a list', f.list(f.number(0), [], 2), '12', undefined],
    ['an object that looks like a list', f.list(f.number(0), [], 2), { length: 2 }, undefined],
    ['one for all', f.oneOrList(f.count(1, 9), 2), 4, 4],
    ['one each', f.oneOrList(f.count(1, 9), 2), [4, 5], [4, 5]],
    ['the only value', f.only('default'), 'default', 'default'],
    ['another than the only value', f.only('default'), 'gated', undefined],
  ];
  test.each(rows)('%s', (_, field, given, expected) => {
    expect(field.parse(given)).toEqual(expected);
  });

  test('are read with their defaults, and errors name the entry', () => {
    const fields = { size: f.count(7, 64), name: f.choice('a', ['a', 'b']) };
    expect(f.readFields('here', fields, { size: undefined })).toEqual({ size: 7, name: 'a' });
    expect(() => f.readFields('here', fields, { size: 65 })).toThrow(InvalidArgumentError);
    expect(() => f.readFields('x/config.json', fields, { size: 65 }, ConfigError)).toThrow(ConfigError);
    expect(() => f.readFields('here', fields, { size: 65 })).toThrow(
      '[here] size expects an integer from 1 to 64, got 65',
    );
    expect(() => f.readFields('here', { toString: f.integer(3) }, {})).not.toThrow();
  });
});

const parsers = { unet: parseUNetConfig, vae: parseAutoencoderConfig, text_encoder: parseCLIPTextConfig };

describe('config.json of a model', () => {
  const hostile: [keyof typeof parsers, Record<string, unknown>, RegExp][] = [
    ['unet', { layers_per_block: 1e9 }, /layers_per_block expects an integer from 1 to 256.*got 1000000000/],
    ['unet', { block_out_channels: [1e12, 8, 8, 8] }, /block_out_channels expects/],
    ['unet', { down_block_types: Array(1000).fill('DownBlock2D') }, /down_block_types expects.*a list of 1000/],
    ['unet', { transformer_layers_per_block: 256, layers_per_block: 256 }, /at most 4096 transformer blocks in all/],
    ['unet', { transformer_layers_per_block: [[1e9], 1, 1, 1] }, /transformer_layers_per_block expects/],
    ['unet', { attention_head_dim: -1 }, /attention_head_dim expects/],
    ['unet', { sample_size: [64, 64, 64] }, /sample_size expects/],
    ['unet', { num_class_embeds: 1e15 }, /num_class_embeds expects/],
    [
      'unet',
      { attention_type: 'gated' },
      /attention_type expects 'default' \(nothing else is supported\), got "gated"/,
    ],
    ['unet', { num_attention_heads: 8 }, /num_attention_heads expects null/],
    ['vae', { layers_per_block: 1e9 }, /layers_per_block expects/],
    ['vae', { block_out_channels: [64, 64] }, /block_out_channels expects a list of 1/],
    ['vae', { latents_mean: [0, 0, 0, 0] }, /latents_mean expects null \(nothing else/],
    ['text_encoder', { num_hidden_layers: 1e9 }, /num_hidden_layers expects/],
    ['text_encoder', { vocab_size: 2 ** 40 }, /vocab_size expects/],
    ['text_encoder', { text_config: 5 }, /the file expects an object, got 5/],
  ];
  test.each(hostile)('%s with %j', (model, json, message) => {
    const parse = () => parsers[model](json, `${model}/config.json`);
    expect(parse).toThrow(ConfigError);
    expect(parse).toThrow(message);
    expect(parse).toThrow(`[${model}/config.json] `);
  });

  test('that is no object', () => {
    for (const parse of Object.values(parsers)) {
      expect(() => parse([] as never, 'config.json')).toThrow(ConfigError);
    }
  });

  test('entries without effect pass, and a name that nobody knows is warned about once', () => {
    parseUNetConfig({ _name_or_path: 'x', dropout: 0.5, resnet_skip_time_act: true }, 'unet/config.json');
    parseCLIPTextConfig({ architectures: ['CLIPTextModel'], torch_dtype: 'float16' }, 'text_encoder/config.json');
    expect(warnings).toEqual([]);
    parseUNetConfig({ invented_for_the_unet: 1 }, 'unet/config.json');
    parseUNetConfig({ invented_for_the_unet: 2 }, 'unet/config.json');
    expect(warnings).toEqual(['[unet/config.json] the entry "invented_for_the_unet" is not known and has no effect']);
  });

  test('gives what the file says under camelCase names', () => {
    expect(parseAutoencoderConfig({ shift_factor: 0.1, force_upcast: false }, 'vae/config.json')).toMatchObject({
      shiftFactor: 0.1,
      forceUpcast: false,
      scalingFactor: 0.18215,
      sampleSize: 32,
    });
    expect(parseUNetConfig({ layers_per_block: [1, 2, 3, 4], sample_size: 32 }, 'unet/config.json')).toMatchObject({
      layersPerBlock: [1, 2, 3, 4],
      sampleSize: [32, 32],
      crossAttentionDim: [1280, 1280, 1280, 1280],
      numAttentionHeads: [8, 8, 8, 8],
      transformerLayersPerUpBlock: [1, 1, 1, 1],
    });
  });
});
