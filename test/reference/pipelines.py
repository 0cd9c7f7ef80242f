"""Small pipelines of Python diffusers, with weights that generated_weights.py describes, and what a call of one computes."""

import json

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from generated_weights import fill, generated, randn
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
VAE = dict(
    block_out_channels=[8, 16],
    down_block_types=["DownEncoderBlock2D"] * 2,
    up_block_types=["UpDecoderBlock2D"] * 2,
    norm_num_groups=4,
)
UNET = dict(
    sample_size=8,
    block_out_channels=[8, 16],
    layers_per_block=1,
    cross_attention_dim=16,
    norm_num_groups=4,
    down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
)
TEXT = dict(
    vocab_size=658,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    bos_token_id=656,
    eos_token_id=657,
)
END = "<|endoftext|>"
# arguments that are tensors or pictures
TENSORS = [
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
    "latents",
    "image",
    "control_image",
    "mask_image",
    "masked_image_latents",
]

# diffusers' clip_skip expects the layers of transformers' text encoder where they were before its release 5
if not hasattr(CLIPTextModel, "text_model"):
    CLIPTextModel.text_model = property(lambda self: self)


def text_encoder(config, model_class=CLIPTextModel):
    model = model_class(CLIPTextConfig(**config)).eval()
    state = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    prefix = "" if any(k.startswith("text_model.") for k in state) else "text_model."
    model.load_state_dict({k: generated(prefix + k, v.shape) for k, v in state.items()}, strict=False)
    return model


def controlnet(config):
    """A ControlNet, or a list of them, as `config` is."""
    if isinstance(config, list):
        return [controlnet(each) for each in config]
    net = ControlNetModel(**config).eval()
    fill(net)
    return net


def pipeline(kind, tokenizer, name="StableDiffusionPipeline"):
    """A pipeline of class `name` with the components that `kind` configures."""
    scheduler = dict(kind["scheduler"])
    unet = UNet2DConditionModel(**kind["unet"]).eval()
    vae = AutoencoderKL(**kind["vae"]).eval()
    fill(unet), fill(vae)
    parts = {"controlnet": controlnet(kind["controlnet"])} if "controlnet" in kind else {}
    parts |= dict(
        unet=unet,
        vae=vae,
        scheduler=getattr(diffusers, scheduler.pop("_class_name")).from_config(scheduler),
    )
    tokens = lambda: CLIPTokenizer.from_pretrained(tokenizer, pad_token=kind["pad"])
    if "text_encoder_2" in kind:
        first = kind["text_encoder"] is not None
        parts |= dict(
            text_encoder=text_encoder(kind["text_encoder"]) if first else None,
            text_encoder_2=text_encoder(kind["text_encoder_2"], CLIPTextModelWithProjection),
            tokenizer=tokens() if first else None,
            tokenizer_2=tokens(),
            **kind["config"],
        )
    else:
        parts |= dict(text_encoder=text_encoder(kind["text_encoder"]), tokenizer=tokens())
        parts |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    return getattr(diffusers, name)(**parts)


def picture(seed, height, width):
    """A picture of 8-bit RGB, [height, width, 3]: colours that change slowly, and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (3 + c) + seed) * np.cos(y / (4 - c)) for c in range(3)]
    noisy = 127 + 90 * np.stack(waves, axis=-1) + rng.normal(0, 20, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def mask(height, width, top, bottom, left, right):
    """A mask of 8-bit grey, [height, width, 1]: white in the given rows and columns, with a grey edge."""
    pixels = np.zeros((height, width, 1), np.uint8)
    pixels[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = 90
    pixels[top:bottom, left:right] = 255
    return pixels


def watch(pipe, kept):
    """Keeps the first call of the UNet in `kept`."""
    forward = pipe.unet.forward

    def watched_forward(sample, timestep, *rest, **kw):
        out = forward(sample, timestep, *rest, **kw)
        kept.setdefault("unet_out", out[0])
        kept.setdefault("text_embeds", kw["encoder_hidden_states"])
        return out

    pipe.unet.forward = watched_forward


def keeping(kept, callback):
    """A callback that keeps the latents of every step in `kept`, before the case's own callback."""

    def keep(pipe, step, timestep, kwargs):
        kept.setdefault("latents", []).append(kwargs["latents"])
        return callback(pipe, step, timestep, kwargs) if callback else {}

    return keep


def given(args, kept):
    """
    The arguments of a call; [shape, seed] stands for normal numbers, {"picture": [[seed, h, w], ...]} for pictures and
    {"mask": [[h, w, top, bottom, left, right], ...]} for masks.
    """
    call = dict(args)
    for key in TENSORS:
        value = call.get(key)
        if isinstance(value, dict):
            pixels = [picture(*p) for p in value.get("picture", [])] + [mask(*m) for m in value.get("mask", [])]
            kept["given_" + key] = torch.from_numpy(np.stack(pixels))
            images = [Image.fromarray(p.squeeze()) for p in pixels]
            call[key] = images[0] if len(images) == 1 else images
        elif value is not None:
            shape, seed = value
            kept["given_" + key] = call[key] = randn(seed, *shape)
    return call


def run(pipe, settings, args):
    """What a call gives, stage by stage: tensors by name."""
    pipe.to(getattr(torch, settings.get("dtype", "float32"))).to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if "scheduler" in settings:
        config = {**pipe.scheduler.config, **settings.get("scheduler_config", {})}
        pipe.scheduler = getattr(diffusers, settings["scheduler"]).from_config(config)
    kept = {}
    watch(pipe, kept)
    call = given(args, kept)
    seeds = call.pop("seed")
    generators = [torch.Generator("cpu").manual_seed(s) for s in np.atleast_1d(seeds).tolist()]
    generator = generators if isinstance(seeds, list) else generators[0]
    callback = keeping(kept, call.pop("callback_on_step_end", None))
    output_type = "pil" if "padding_mask_crop" in call else "np"
    images = pipe(
        call.pop("prompt", None), generator=generator, output_type=output_type, callback_on_step_end=callback, **call
    ).images
    kept["latents"] = torch.stack(kept["latents"])
    if output_type == "pil":
        images = np.stack([np.asarray(image, np.float32) / 255 for image in images])
    kept["image"] = torch.from_numpy(images).permute(0, 3, 1, 2)
    return {k: v if v.dtype == torch.uint8 else v.detach().float() for k, v in kept.items()}


def save(path, cases, kinds):
    """Writes cases, each a description and its tensors, for test/support/reference_cases.ts."""
    tensors = {
        f"{i}.{name}": tensor.contiguous().clone() for i, (_, kept) in enumerate(cases) for name, tensor in kept.items()
    }
    metadata = {"cases": json.dumps([case for case, _ in cases]), "kinds": json.dumps(kinds)}
    save_file(tensors, path, metadata=metadata)
    print(len(cases), "cases")
