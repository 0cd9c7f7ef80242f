"""PyTorch's side of sd15.mjs: the same work as one JSON line per request on standard input.

A request is {"work": "unet" | "vae" | "attention" | "attention-backward", "dtype", "batch", "size", "runs", "shape", "compile"}.
Models have Stable Diffusion 1.5's sizes and random weights; they are kept between requests. The first request of a kind
tries every setting that PyTorch has for attention (and, when asked, torch.compile); the fastest one is then measured.
"""
import contextlib
import gc
import json
import sys
import time

import torch

torch.set_num_threads(int(sys.argv[1]))

# Latents above which the settings that hold the whole matrix of scores (17 GB at 128) are not tried.
LARGEST_MATRIX = 64


def seconds(f, runs):
    f()
    result = []
    for _ in range(runs):
        begin = time.perf_counter()
        f()
        result.append(time.perf_counter() - begin)
    return result


def resident(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


def peak_above(f):
    """Bytes of resident memory that one call needs above what was resident before it (Linux)."""
    gc.collect()
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    before = resident("VmRSS")
    f()
    return resident("VmHWM") - before


def with_kernel(backend, f):
    """f with that implementation of scaled_dot_product_attention; None leaves the choice to PyTorch."""
    from torch.nn.attention import sdpa_kernel

    def run():
        with contextlib.nullcontext() if backend is None else sdpa_kernel(backend):
            return f()

    return run


def sdpa_settings(f, size=0):
    from torch.nn.attention import SDPBackend

    if size > LARGEST_MATRIX:
        return {"sdpa": f}
    return {
        "sdpa": with_kernel(None, f),
        "sdpa, flash": with_kernel(SDPBackend.FLASH_ATTENTION, f),
        "sdpa, math": with_kernel(SDPBackend.MATH, f),
    }


def classic(model, f):
    """f with diffusers' AttnProcessor, which holds the matrix of scores; the processor is put back afterwards."""
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    def run():
        model.set_attn_processor(AttnProcessor())
        try:
            return f()
        finally:
            model.set_attn_processor(AttnProcessor2_0())

    return run


def model_settings(request, model, call):
    """`call` takes the model or its compiled form."""
    settings = sdpa_settings(lambda: call(model), request["size"])
    if request["size"] <= LARGEST_MATRIX:
        settings["classic"] = classic(model, lambda: call(model))
    if request.get("compile"):
        compiled = torch.compile(model)
        settings["compiled"] = lambda: call(compiled)
    return settings


def unet(request, dtype):
    from diffusers import UNet2DConditionModel

    torch.set_default_dtype(dtype)
    model = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval().to(memory_format=torch.channels_last)
    torch.set_default_dtype(torch.float32)
    batch, size = request["batch"], request["size"]
    x = torch.randn(batch, 4, size, size, dtype=dtype).to(memory_format=torch.channels_last)
    text = torch.randn(batch, 77, 768, dtype=dtype)
    return model_settings(request, model, lambda m: m(x, 500, text))


def vae(request, dtype):
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    model = model.to(dtype).eval().to(memory_format=torch.channels_last)
    latents = torch.randn(1, 4, request["size"], request["size"], dtype=dtype)
    settings = sdpa_settings(lambda: model.decode(latents), request["size"])
    if request.get("compile"):
        decode = torch.compile(model.decode)
        settings["compiled"] = lambda: decode(latents)
    return settings


def attention(request, dtype):
    q, k, v = (torch.randn(*request["shape"], dtype=dtype) for _ in range(3))
    return sdpa_settings(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))


def attention_backward(request, dtype):
    from torch.nn.attention import SDPBackend

    with torch.inference_mode(False):
        q, k, v = (torch.randn(*request["shape"], dtype=dtype, requires_grad=True) for _ in range(3))
        dy = torch.randn(*request["shape"], dtype=dtype)
        settings = {}
        for name, backend in {"sdpa, flash": SDPBackend.FLASH_ATTENTION, "sdpa, math": SDPBackend.MATH}.items():
            out = with_kernel(backend, lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))()
            settings[name] = lambda out=out: torch.autograd.grad(out, (q, k, v), dy, retain_graph=True)
    return settings


def fastest(settings):
    """The setting whose second call takes the least time, and the seconds of all."""
    if len(settings) == 1:
        return *settings.popitem(), {}
    tried = {name: seconds(f, 1)[0] for name, f in settings.items()}
    best = min(tried, key=tried.get)
    return best, settings[best], tried


works = {"unet": unet, "vae": vae, "attention": attention, "attention-backward": attention_backward}
current = None
for line in sys.stdin:
    request = json.loads(line)
    key = json.dumps({k: v for k, v in request.items() if k != "runs"}, sort_keys=True)
    grad = request["work"] == "attention-backward"
    with torch.inference_mode(not grad):
        peak = None
        if current is None or current[0] != key:
            current = None
            settings = works[request["work"]](request, getattr(torch, request["dtype"]))
            # the memory of the very first call, before the allocator has learned to keep what it needs
            first = next(iter(settings))
            peak = peak_above(settings[first])
            current = (key, *fastest(settings))
        _, setting, f, tried = current
        times = seconds(f, request["runs"])
    answer = {"seconds": times, "peakBytes": peak, "torch": torch.__version__, "setting": setting, "tried": tried}
    print(json.dumps(answer), flush=True)
