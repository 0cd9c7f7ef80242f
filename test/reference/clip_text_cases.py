"""What transformers' CLIPTextModel gives over its configurations, with weights that generated_weights.py describes.

    python clip_text_cases.py ../fixtures/models/clip_text.safetensors

hidden.N is the state after the last N layers have been left out, through the final layer norm (diffusers' clip_skip).
"""

import json, sys
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from safetensors.torch import save_file
from generated_weights import generated

BASE = dict(
    vocab_size=60,
    hidden_size=16,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=2,
    max_position_embeddings=12,
    hidden_act="quick_gelu",
    bos_token_id=57,
    eos_token_id=58,
    pad_token_id=58,
    projection_dim=16,
)
IDS = torch.tensor([[57, 3, 17, 59, 42, 58, 58, 58, 58, 58, 58, 58], [57, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 58]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0], [1] * 12])
CASES = {
    "quick_gelu, the first end-of-text token": (CLIPTextModel, {}, IDS, None),
    "gelu, an end-of-text token of 2 means the largest id": (
        CLIPTextModel,
        dict(hidden_act="gelu", eos_token_id=2, num_attention_heads=4, layer_norm_eps=1e-3),
        IDS,
        None,
    ),
    "fewer tokens than positions": (CLIPTextModel, {}, IDS[:, :7], None),
    "attention mask": (CLIPTextModel, dict(use_attention_mask=True), IDS, MASK),
    "with projection": (CLIPTextModelWithProjection, dict(projection_dim=10), IDS, None),
}
tensors, cases = {}, []
for i, (name, (cls, overrides, ids, mask)) in enumerate(CASES.items()):
    settings = {**BASE, **overrides}
    model = cls(CLIPTextConfig(**settings)).eval()
    full = lambda k: k if k.startswith(("text_model.", "text_projection.")) else "text_model." + k
    model.load_state_dict(
        {k: generated(full(k), v.shape) for k, v in model.state_dict().items() if v.is_floating_point()}, strict=False
    )
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        inner = model.text_model if hasattr(model, "text_model") else model
        given = {
            f"hidden.{n}": inner.final_layer_norm(out.hidden_states[-1 - n]) for n in range(len(out.hidden_states))
        }
    given.update(
        last_hidden_state=out.last_hidden_state,
        pooled=out.text_embeds if cls is CLIPTextModelWithProjection else out.pooler_output,
    )
    tensors.update({f"{i}.{k}": v.float().contiguous().clone() for k, v in given.items()})
    cases.append(
        {
            "name": name,
            "config": settings,
            "digest": "",
            "projection": cls is CLIPTextModelWithProjection,
            "ids": ids.tolist(),
            "mask": None if mask is None else mask.tolist(),
        }
    )
save_file(tensors, sys.argv[1], metadata={"cases": json.dumps(cases)})
print(len(cases), "cases")
