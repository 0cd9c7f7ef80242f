"""Names and shapes of single files in the original layout, and which of diffusers' tensors each of theirs is.

The way from diffusers to the original layout is that of convert_diffusers_to_original_stable_diffusion.py and
convert_diffusers_to_original_sdxl.py in diffusers' scripts; for what they do not know (the refiner, ControlNets) that of
`original_blocks` here. That diffusers' own single_file_utils reads each file back is asserted.

python single_file_cases.py DIFFUSERS/scripts ../fixtures/single_files.json.gz
"""

import contextlib
import gzip
import importlib.util
import io
import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.loaders import single_file_utils as utils
from generated_weights import generated
from pipelines import TEXT, UNET, VAE
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection


def script(name):
    spec = importlib.util.spec_from_file_location(name, Path(sys.argv[1]) / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sd, sdxl = script("convert_diffusers_to_original_stable_diffusion"), script("convert_diffusers_to_original_sdxl")

CROSS, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
FOUR = dict(
    UNET, block_out_channels=[8, 8, 16, 16], layers_per_block=2, attention_head_dim=4,
    down_block_types=[CROSS] * 3 + ["DownBlock2D"], up_block_types=["UpBlock2D"] + [CROSS_UP] * 3,
)
TIMES = dict(addition_embed_type="text_time", addition_time_embed_dim=8, use_linear_projection=True)
XL = dict(
    FOUR, **TIMES, block_out_channels=[8, 16, 16], attention_head_dim=[2, 4, 4], transformer_layers_per_block=[1, 2, 3],
    cross_attention_dim=32, projection_class_embeddings_input_dim=16 + 6 * 8,
    down_block_types=["DownBlock2D", CROSS, CROSS], up_block_types=[CROSS_UP, CROSS_UP, "UpBlock2D"],
)
REFINER = dict(
    FOUR, **TIMES, transformer_layers_per_block=2, projection_class_embeddings_input_dim=16 + 5 * 8,
    down_block_types=["DownBlock2D", CROSS, CROSS, "DownBlock2D"], up_block_types=["UpBlock2D", CROSS_UP, CROSS_UP, "UpBlock2D"],
)
FOUR_VAE = dict(
    VAE, block_out_channels=[8, 8, 16, 16], layers_per_block=2,
    down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
)
OPEN = dict(TEXT, hidden_act="gelu", projection_dim=16)


def state(model, prefix=""):
    return {prefix + k: generated(prefix + k, v.shape) for k, v in model.state_dict().items() if v.is_floating_point()}


def unet(config):
    return state(UNet2DConditionModel(**config))


def text(config, projection=False):
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    model = kind(CLIPTextConfig(**config))
    return state(model, "" if projection else "text_model.")


def original_blocks(weights, layers):
    """The original names of a UNet's or a ControlNet's blocks, of `layers` ResNet blocks each."""
    renamed = {}
    for key, value in weights.items():
        parts = key.split(".")
        if parts[0] in ("down_blocks", "up_blocks"):
            side, block, kind, place, *rest = parts
            down = side == "down_blocks"
            entry = int(block) * (layers + 1) + int(place) + (1 if down else 0)
            has_attention = any(k.startswith(f"{side}.{block}.attentions") for k in weights)
            where = {"resnets": "0", "attentions": "1"}.get(kind)
            if kind == "downsamplers":
                entry, where, rest = (int(block) + 1) * (layers + 1), "0", ["op", *rest[1:]]
            elif kind == "upsamplers":
                entry, where = int(block) * (layers + 1) + layers, "2" if has_attention else "1"
            key = ".".join([{True: "input_blocks", False: "output_blocks"}[down], str(entry), where, *rest])
        elif parts[0] == "mid_block":
            index = 1 if parts[1] == "attentions" else 2 * int(parts[2])
            key = ".".join(["middle_block", str(index), *parts[3:]])
        if "resnets" in parts:
            for new, old in sd.unet_conversion_map_resnet:
                key = key.replace(old, new)
        renamed[key] = value
    for new, old in [*sd.unet_conversion_map, *sdxl.unet_conversion_map]:
        if old in renamed:
            renamed[new] = renamed.pop(old)
    return renamed


def original_controlnet(weights, layers):
    hints = sum(k.startswith("controlnet_cond_embedding.blocks.") for k in weights) // 2
    names = {"controlnet_cond_embedding.conv_in": "input_hint_block.0", "controlnet_mid_block": "middle_block_out.0",
             "controlnet_cond_embedding.conv_out": f"input_hint_block.{2 * (hints + 1)}"}
    names.update({f"controlnet_cond_embedding.blocks.{i}": f"input_hint_block.{2 * (i + 1)}" for i in range(hints)})
    names.update({f"controlnet_down_blocks.{i}": f"zero_convs.{i}.0" for i in range(40)})
    renamed = original_blocks(weights, layers)
    return {names.get(k.rsplit(".", 1)[0], k.rsplit(".", 1)[0]) + "." + k.rsplit(".", 1)[1]: v for k, v in renamed.items()}


def prefixed(prefix, weights):
    return {prefix + k: v for k, v in weights.items()}


def open_clip(weights):
    """OpenCLIP's names; the projection is the other way round there."""
    renamed = sdxl.convert_openclip_text_enc_state_dict(weights)
    if "text_projection.weight" in renamed:
        renamed["text_projection"] = renamed.pop("text_projection.weight").T.contiguous()
    return renamed


def v2_text(weights):
    return sd.convert_text_enc_state_dict_v20({"transformer." + k: v for k, v in weights.items()})


def same(read, expected):
    assert sorted(read) == sorted(expected), set(read) ^ set(expected)
    for key, value in expected.items():
        assert torch.equal(read[key].reshape(value.shape), value), key


def origins(file, components):
    """For each tensor of the file its shape and the tensors of diffusers' that it is made of."""
    by_bytes = {v.numpy().tobytes(): [folder, k] for folder, weights in components.items() for k, v in weights.items()}
    found = {}
    for key, value in file.items():
        whole = by_bytes.get(value.numpy().tobytes())
        turned = by_bytes.get(value.T.contiguous().numpy().tobytes()) if value.ndim == 2 else None
        thirds = [by_bytes.get(part.contiguous().numpy().tobytes()) for part in value.chunk(3)] if value.ndim else []
        of = [whole] if whole else [turned] if turned else thirds if None not in thirds and thirds else []
        found[key] = dict(shape=list(value.shape), of=of, **({"transposed": True} if turned and not whole else {}))
    return found


families = {}


def family(name, configs, components, file, extra=None):
    for key, value in (extra or {}).items():
        file[key] = value
    families[name] = dict(configs=configs, file=origins(file, components))


def vae_file(weights):
    with contextlib.redirect_stdout(io.StringIO()):
        return sd.convert_vae_state_dict(dict(weights))


vae = state(AutoencoderKL(**FOUR_VAE))

# Stable Diffusion 1, with what training leaves in a file
configs = dict(unet=FOUR, vae=FOUR_VAE, text_encoder=TEXT)
parts = dict(unet=unet(FOUR), vae=vae, text_encoder=text(TEXT))
file = {
    **prefixed("model.diffusion_model.", sd.convert_unet_state_dict(parts["unet"])),
    **prefixed("first_stage_model.", vae_file(vae)),
    **prefixed("cond_stage_model.transformer.", parts["text_encoder"]),
}
same(utils.convert_ldm_unet_checkpoint(dict(file), FOUR), parts["unet"])
same(utils.convert_ldm_vae_checkpoint(dict(file), FOUR_VAE), vae)
same(utils.convert_ldm_clip_checkpoint(dict(file)), parts["text_encoder"])
extra = {"alphas_cumprod": torch.ones(1000), "model_ema.decay": torch.tensor(0.5),
         "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77.0)[None]}
family("v1", configs, parts, file, extra)
family("vae", dict(vae=FOUR_VAE), dict(vae=vae), vae_file(vae))

# inpainting
config = dict(FOUR, in_channels=9)
weights = unet(config)
file = {
    **prefixed("model.diffusion_model.", sd.convert_unet_state_dict(weights)),
    **prefixed("first_stage_model.", vae_file(vae)),
    **prefixed("cond_stage_model.transformer.", parts["text_encoder"]),
}
same(utils.convert_ldm_unet_checkpoint(dict(file), config), weights)
family("v1-inpainting", dict(configs, unet=config), dict(parts, unet=weights), file)

# Stable Diffusion 2: its file has one layer of the text encoder more than is used
config = dict(FOUR, use_linear_projection=True, attention_head_dim=[2, 2, 4, 4])
longer = text(dict(OPEN, num_hidden_layers=4))
shorter = {k: v for k, v in longer.items() if ".layers.3." not in k}
parts = dict(unet=unet(config), vae=vae, text_encoder=shorter)
file = {
    **prefixed("model.diffusion_model.", sd.convert_unet_state_dict(parts["unet"])),
    **prefixed("first_stage_model.", vae_file(vae)),
    **prefixed("cond_stage_model.model.", v2_text(longer)),
}
same(utils.convert_ldm_unet_checkpoint(dict(file), config), parts["unet"])
extra = {"cond_stage_model.model.text_projection": torch.eye(16), "cond_stage_model.model.logit_scale": torch.tensor(4.0)}
family("v2", dict(unet=config, vae=FOUR_VAE, text_encoder=OPEN), parts, file, extra)

# Stable Diffusion XL
parts = dict(unet=unet(XL), vae=vae, text_encoder=text(TEXT), text_encoder_2=text(OPEN, projection=True))
file = {
    **prefixed("model.diffusion_model.", original_blocks(parts["unet"], 2)),
    **prefixed("first_stage_model.", vae_file(vae)),
    **prefixed("conditioner.embedders.0.transformer.", parts["text_encoder"]),
    **prefixed("conditioner.embedders.1.model.", open_clip(parts["text_encoder_2"])),
}
script_unet = sdxl.convert_unet_state_dict(parts["unet"])
same(prefixed("model.diffusion_model.", script_unet), {k: v for k, v in file.items() if k.startswith("model.diffusion")})
same(utils.convert_ldm_unet_checkpoint(dict(file), dict(XL, class_embed_type=None)), parts["unet"])
model = CLIPTextModelWithProjection(CLIPTextConfig(**OPEN))
same(utils.convert_open_clip_checkpoint(model, dict(file), prefix="conditioner.embedders.1.model."), parts["text_encoder_2"])
family("xl-base", dict(unet=XL, vae=FOUR_VAE, text_encoder=TEXT, text_encoder_2=OPEN), parts, file)

parts = dict(unet=unet(REFINER), vae=vae, text_encoder_2=parts["text_encoder_2"])
file = {
    **prefixed("model.diffusion_model.", original_blocks(parts["unet"], 2)),
    **prefixed("first_stage_model.", vae_file(vae)),
    **prefixed("conditioner.embedders.0.model.", open_clip(parts["text_encoder_2"])),
}
same(utils.convert_ldm_unet_checkpoint(dict(file), dict(REFINER, class_embed_type=None)), parts["unet"])
family("xl-refiner", dict(unet=REFINER, vae=FOUR_VAE, text_encoder_2=OPEN), parts, file)

# ControlNets
half = {k: v for k, v in FOUR.items() if k not in ("up_block_types", "sample_size")}
config = dict(half, conditioning_embedding_out_channels=[4, 4, 8, 8])
weights = state(ControlNetModel(**config))
file = prefixed("control_model.", original_controlnet(weights, 2))
same(utils.convert_controlnet_checkpoint(dict(file), config), weights)
family("controlnet-v1", dict(controlnet=config), dict(controlnet=weights), file)

Path(sys.argv[2]).write_bytes(gzip.compress(json.dumps(families, separators=(",", ":")).encode(), mtime=0))
print({name: len(f["file"]) for name, f in families.items()})
