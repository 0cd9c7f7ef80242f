"""Outputs of diffusers' UNet2DConditionModel over its configurations, with weights that generated_weights.py describes.

python unet_cases.py ../fixtures/models/unet.safetensors
"""

import json, sys
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from generated_weights import fill, randn

BASE = dict(
    sample_size=8,
    block_out_channels=(8, 16),
    layers_per_block=1,
    cross_attention_dim=12,
    attention_head_dim=2,
    norm_num_groups=4,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
)
BOTH = dict(down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2)
THREE = dict(
    block_out_channels=(8, 8, 16),
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
)
B, TOKENS = 2, 5
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]], dtype=torch.float32)
CASES = {
    "sd15: heads of 20 and 40 channels": (dict(block_out_channels=(20, 40), attention_head_dim=1), {}),
    "sd21: linear projections, heads by block, v-prediction's upcast": (
        dict(use_linear_projection=True, attention_head_dim=[2, 4], upcast_attention=True),
        {},
    ),
    "heads that do not divide the channels": (dict(attention_head_dim=3, **BOTH), {}),
    "heads that do not divide the channels, linear": (
        dict(attention_head_dim=[3, 5], use_linear_projection=True, **BOTH),
        {},
    ),
    "three levels, odd sizes": (THREE, {}),
    "class_embed_type timestep": (dict(class_embed_type="timestep"), dict(class_labels=torch.tensor([17.0, 500.5]))),
    "class_embed_type identity": (dict(class_embed_type="identity"), dict(class_labels=randn(11, B, 32))),
    "class_embed_type projection": (
        dict(class_embed_type="projection", projection_class_embeddings_input_dim=10),
        dict(class_labels=randn(12, B, 10)),
    ),
    "class_embed_type simple_projection": (
        dict(class_embed_type="simple_projection", projection_class_embeddings_input_dim=10),
        dict(class_labels=randn(13, B, 10)),
    ),
    "num_class_embeds": (dict(num_class_embeds=7), dict(class_labels=torch.tensor([6, 0]))),
    "class_embeddings_concat": (
        dict(class_embed_type="projection", projection_class_embeddings_input_dim=10, class_embeddings_concat=True),
        dict(class_labels=randn(14, B, 10)),
    ),
    "time_cond_proj_dim": (dict(time_cond_proj_dim=6), dict(timestep_cond=randn(15, B, 6))),
    "time_cond_proj_dim without a condition": (dict(time_cond_proj_dim=6), {}),
    "resnet_time_scale_shift scale_shift": (dict(resnet_time_scale_shift="scale_shift"), {}),
    "only_cross_attention": (dict(only_cross_attention=True, **BOTH), {}),
    "only_cross_attention by block": (
        dict(only_cross_attention=[True, False], mid_block_only_cross_attention=True, **BOTH),
        {},
    ),
    "mid_block_type UNetMidBlock2D": (dict(mid_block_type="UNetMidBlock2D"), {}),
    "mid_block_type null": (dict(mid_block_type=None), {}),
    "transformer_layers_per_block": (dict(transformer_layers_per_block=[2, 1], **BOTH), {}),
    "transformer_layers_per_block by attention": (
        dict(
            layers_per_block=2,
            transformer_layers_per_block=[1, [2, 1]],
            reverse_transformer_layers_per_block=[[1, 2, 1], 1],
            mid_block_type=None,
            **BOTH,
        ),
        {},
    ),
    "layers_per_block by block": (dict(layers_per_block=[2, 1]), {}),
    "cross_attention_dim by block": (dict(cross_attention_dim=[12, 12], **BOTH), {}),
    "addition_embed_type text_time": (
        dict(
            addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=6 * 4 + 10
        ),
        dict(
            text_embeds=randn(16, B, 10), time_ids=torch.tensor([[64.0, 48, 0, 8, 64, 48], [512, 512, 3, 0, 512, 512]])
        ),
    ),
    "encoder_attention_mask": (dict(**BOTH), dict(encoder_attention_mask=MASK)),
    "encoder_attention_mask with only_cross_attention": (
        dict(only_cross_attention=True, **BOTH),
        dict(encoder_attention_mask=MASK),
    ),
    "more heads than channels where nothing attends": (
        dict(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=12,
        ),
        {},
    ),
    "the rest": (
        dict(
            in_channels=9,
            out_channels=8,
            center_input_sample=True,
            flip_sin_to_cos=False,
            freq_shift=1,
            downsample_padding=0,
            mid_block_scale_factor=1.7,
            conv_in_kernel=5,
            conv_out_kernel=1,
            time_embedding_dim=20,
            timestep_post_act="silu",
            norm_eps=1e-3,
            resnet_out_scale_factor=1.3,
            resnet_skip_time_act=True,
        ),
        {},
    ),
    "residuals of a ControlNet": (
        dict(),
        dict(
            down_residuals=[
                randn(20, B, 8, 9, 13),
                randn(21, B, 8, 9, 13),
                randn(22, B, 8, 5, 7),
                randn(23, B, 16, 5, 7),
            ],
            mid_residual=randn(24, B, 16, 5, 7),
        ),
    ),
    "residuals of a T2I-Adapter": (dict(), dict(intrablock_residuals=[randn(25, B, 8, 9, 13), randn(26, B, 16, 5, 7)])),
    "residuals of a T2I-Adapter with one for the middle, and of a ControlNet": (
        dict(mid_block_type="UNetMidBlock2D", **BOTH),
        dict(
            intrablock_residuals=[randn(25, B, 8, 9, 13), randn(26, B, 16, 5, 7), randn(27, B, 16, 5, 7)],
            down_residuals=[
                randn(20, B, 8, 9, 13),
                randn(21, B, 8, 9, 13),
                randn(22, B, 8, 5, 7),
                randn(23, B, 16, 5, 7),
            ],
            mid_residual=randn(24, B, 16, 5, 7),
        ),
    ),
    "residuals of a ControlNet without a middle block": (
        dict(mid_block_type=None),
        dict(
            down_residuals=[
                randn(20, B, 8, 9, 13),
                randn(21, B, 8, 9, 13),
                randn(22, B, 8, 5, 7),
                randn(23, B, 16, 5, 7),
            ],
            mid_residual=randn(24, B, 16, 5, 7),
        ),
    ),
}
RESIDUALS = {
    "down_residuals": "down_block_additional_residuals",
    "intrablock_residuals": "down_intrablock_additional_residuals",
    "mid_residual": "mid_block_additional_residual",
}
GRADIENTS = ("sd21: linear projections, heads by block, v-prediction's upcast", "three levels, odd sizes")

tensors, cases = {}, []
for i, (name, (overrides, inputs)) in enumerate(CASES.items()):
    unet = UNet2DConditionModel(**{**BASE, **overrides}).eval()
    digest = fill(unet)
    given = {
        "sample": randn(1, B, unet.config.in_channels, 9, 13),
        "timestep": torch.tensor([3.0, 801.5]),
        "encoder_hidden_states": randn(2, B, TOKENS, 12),
        **inputs,
    }
    call = dict(given)
    if "text_embeds" in call:
        call["added_cond_kwargs"] = {"text_embeds": call.pop("text_embeds"), "time_ids": call.pop("time_ids")}
    for key in RESIDUALS.keys() & call.keys():
        residuals = call.pop(key)
        # diffusers adds to them in place and takes them out of the list
        call[RESIDUALS[key]] = [x.clone() for x in residuals] if isinstance(residuals, list) else residuals
        if isinstance(residuals, list):
            given.update({f"{key}.{j}": x for j, x in enumerate(given.pop(key))})
    for key in ("sample", "encoder_hidden_states"):
        call[key] = call[key].clone().requires_grad_()
    out = unet(**call).sample
    if name in GRADIENTS:
        dy = randn(3, *out.shape)
        out.backward(dy)
        given.update(dy=dy, d_sample=call["sample"].grad, d_encoder_hidden_states=call["encoder_hidden_states"].grad)
    given["out"] = out.detach()
    tensors.update({f"{i}.{k}": v.float().contiguous().clone() for k, v in given.items()})
    cases.append({"name": name, "config": {**BASE, **overrides}, "digest": digest})
save_file(tensors, sys.argv[1], metadata={"cases": json.dumps(cases)})
print(len(cases), "cases")
