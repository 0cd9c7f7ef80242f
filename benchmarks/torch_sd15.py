"""PyTorch's side of sd15.mjs: the same work as one JSON line per request on standard input.

A request is {"work": "unet" | "vae" | "attention" | "attention-backward", "dtype", "batch", "size", "runs", "shape"}.
Models have Stable Diffusion 1.5's sizes and random weights; they are kept between requests.
"""
import gc
import json
import sys
import time

import torch

torch.set_num_threads(int(sys.argv[1]))


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


def unet(request, dtype):
    from diffusers import UNet2DConditionModel

    torch.set_default_dtype(dtype)
    model = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval().to(memory_format=torch.channels_last)
    torch.set_default_dtype(torch.float32)
    batch, size = request["batch"], request["size"]
    x = torch.randn(batch, 4, size, size, dtype=dtype).to(memory_format=torch.channels_last)
    text = torch.randn(batch, 77, 768, dtype=dtype)
    return lambda: model(x, 500, text)


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
    return lambda: model.decode(latents)


def attention(request, dtype):
    q, k, v = (torch.randn(*request["shape"], dtype=dtype) for _ in range(3))
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)


def attention_backward(request, dtype):
    with torch.inference_mode(False):
        q, k, v = (torch.randn(*request["shape"], dtype=dtype, requires_grad=True) for _ in range(3))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        dy = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, (q, k, v), dy, retain_graph=True)


works = {"unet": unet, "vae": vae, "attention": attention, "attention-backward": attention_backward}
current = (None, None)
for line in sys.stdin:
    request = json.loads(line)
    key = json.dumps({k: v for k, v in request.items() if k != "runs"}, sort_keys=True)
    grad = request["work"] == "attention-backward"
    with torch.inference_mode(not grad):
        if current[0] != key:
            current = (None, None)
            current = (key, works[request["work"]](request, getattr(torch, request["dtype"])))
        # the first call's memory, before the allocator has learned to keep what it needs
        peak = peak_above(current[1])
        times = seconds(current[1], request["runs"])
    print(json.dumps({"seconds": times, "peakBytes": peak, "torch": torch.__version__}), flush=True)
