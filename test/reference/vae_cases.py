"""What diffusers' AutoencoderKL encodes and decodes over its configurations, with weights that generated_weights.py describes.

python vae_cases.py ../fixtures/models/vae.safetensors
"""

import json, sys
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from generated_weights import fill, randn


def config(*channels, **rest):
    n = len(channels)
    return dict(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * n,
        up_block_types=("UpDecoderBlock2D",) * n,
        norm_num_groups=4,
        **rest,
    )


CASES = {
    "two blocks": (config(8, 16), (18, 26)),
    "three blocks of two layers, odd sizes": (config(8, 8, 16, layers_per_block=2), (19, 25)),
    "without attention": (config(8, 16, mid_block_add_attention=False), (10, 14)),
    "without quantising convolutions": (
        config(8, 16, use_quant_conv=False, use_post_quant_conv=False, latent_channels=6),
        (10, 14),
    ),
    "other channels": (config(12, in_channels=1, out_channels=2), (7, 5)),
}
tensors, cases = {}, []
for i, (name, (settings, size)) in enumerate(CASES.items()):
    vae = AutoencoderKL(**settings).eval()
    digest = fill(vae)
    image = randn(1, 2, vae.config.in_channels, *size).clamp(-1, 1)
    with torch.no_grad():
        distribution = vae.encode(image).latent_dist
        given = dict(
            image=image,
            mean=distribution.mean,
            logvar=distribution.logvar,
            sample=distribution.sample(torch.Generator("cpu").manual_seed(5)),
        )
    latents = randn(2, *distribution.mean.shape).requires_grad_()
    out = vae.decode(latents).sample
    given.update(latents=latents.detach(), out=out.detach())
    if i == 0:
        dy = randn(3, *out.shape)
        out.backward(dy)
        given.update(dy=dy, d_latents=latents.grad)
    tensors.update({f"{i}.{k}": v.float().contiguous().clone() for k, v in given.items()})
    cases.append({"name": name, "config": settings, "digest": digest})
save_file(tensors, sys.argv[1], metadata={"cases": json.dumps(cases)})
print(len(cases), "cases")
