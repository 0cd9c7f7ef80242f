/** Where a tensor comes from: another one, as it is, transposed, or one of three parts of its rows. */
export interface Origin {
  key: string;
  transposed?: true;
  /** 0, 1 or 2 */
  third?: number;
}

const LAYERS: Readonly<Record<string, string>> = {
  'embeddings.token_embedding.weight': 'token_embedding.weight',
  'embeddings.position_embedding.weight': 'positional_embedding',
  'final_layer_norm.weight': 'ln_final.weight',
  'final_layer_norm.bias': 'ln_final.bias',
};

const WITHIN: Readonly<Record<string, string>> = {
  layer_norm1: 'ln_1',
  layer_norm2: 'ln_2',
  'mlp.fc1': 'mlp.c_fc',
  'mlp.fc2': 'mlp.c_proj',
  'self_attn.out_proj': 'attn.out_proj',
};

/** Where OpenCLIP (src/open_clip/transformer.py) keeps a tensor of transformers' CLIP text encoder. */
export function openClipOrigin(path: string): Origin | undefined {
  if (path === 'text_projection.weight') {
    return { key: 'text_projection', transposed: true };
  }
  const own = path.replace(/^text_model\./, '');
  const key = LAYERS[own];
  return key === undefined ? layerOrigin(own) : { key };
}

function layerOrigin(path: string): Origin | undefined {
  const [, index, layer, kind] = /^encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(path) ?? [];
  if (layer === undefined) {
    return undefined;
  }
  const block = `transformer.resblocks.${index}`;
  const third = ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'].indexOf(layer);
  if (third >= 0) {
    return { key: `${block}.attn.in_proj_${kind}`, third };
  }
  const name = WITHIN[layer];
  return name === undefined ? undefined : { key: `${block}.${name}.${kind}` };
}
