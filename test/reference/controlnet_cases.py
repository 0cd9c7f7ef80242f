"""Outputs of diffusers' ControlNetModel over its configurations, with weights that generated_weights.py describes.

python controlnet_cases.py ../fixtures/models/controlnet.safetensors
"""

import json, sys
import torch
from diffusers import ControlNetModel
from safetensors.torch import save_file
from generated_weights import fill, randn

BASE = dict(
    block_out_channels=(8, 16),
    layers_per_block=1,
    cross_attention_dim=12,
    attention_head_dim=2,
    norm_num_groups=4,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    conditioning_embedding_out_channels=(4, 6),
)
B = 2
CASES = {
    "sd15": ({}, {}),
    "conditioning scale": ({}, dict(conditioning_scale=0.6)),
    "guess mode": ({}, dict(guess_mode=True, conditioning_scale=0.8)),
    "bgr, three levels, other channels": (
        dict(
            controlnet_conditioning_channel_order="bgr",
            block_out_channels=(8, 8, 16),
            conditioning_embedding_out_channels=(4, 4, 6),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
            layers_per_block=2,
        ),
        {},
    ),
    "global pool conditions": (dict(global_pool_conditions=True), dict(guess_mode=True)),
    "mid block without attention, linear projections": (
        dict(mid_block_type="UNetMidBlock2D", use_linear_projection=True, attention_head_dim=(2, 4)),
        {},
    ),
    "SDXL's sizes": (
        dict(
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + 10,
            transformer_layers_per_block=[1, 2],
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        ),
        dict(
            added_cond_kwargs=dict(
                text_embeds=randn(16, B, 10),
                time_ids=torch.tensor([[64.0, 48, 0, 8, 64, 48], [512, 512, 3, 0, 512, 512]]),
            )
        ),
    ),
    "five channels of control, class embedding": (
        dict(conditioning_channels=5, num_class_embeds=7),
        dict(class_labels=torch.tensor([6, 0])),
    ),
}
tensors, cases = {}, []
for i, (name, (overrides, inputs)) in enumerate(CASES.items()):
    net = ControlNetModel(**{**BASE, **overrides}).eval()
    digest = fill(net)
    scale = 2 ** (len(net.config.conditioning_embedding_out_channels) - 1)
    given = dict(
        sample=randn(1, B, 4, 10, 14),
        timestep=torch.tensor([3.0, 801.5]),
        encoder_hidden_states=randn(2, B, 5, 12),
        controlnet_cond=randn(3, B, net.config.conditioning_channels, 10 * scale, 14 * scale).abs().clamp(0, 1),
    )
    with torch.no_grad():
        down, mid = net(**given, **inputs, return_dict=False)
    extra = inputs.get("added_cond_kwargs", {})
    kept = {
        **given,
        **extra,
        **{k: inputs[k] for k in ("class_labels",) if k in inputs},
        **{f"down.{n:02}": d for n, d in enumerate(down)},
        "mid": mid,
    }
    tensors.update({f"{i}.{k}": v.float().contiguous().clone() for k, v in kept.items()})
    options = {k: inputs[k] for k in ("conditioning_scale", "guess_mode") if k in inputs}
    cases.append({"name": name, "config": {**BASE, **overrides}, "digest": digest, "options": options})
save_file(tensors, sys.argv[1], metadata={"cases": json.dumps(cases)})
print(len(cases), "cases")
