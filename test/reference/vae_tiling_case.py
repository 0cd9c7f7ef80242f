"""Tiled decoding and encoding of the tiny-shapes VAE by Python diffusers.

python vae_tiling_case.py weights/tiny-shapes/vae test/fixtures/models/vae_tiling.safetensors
"""

import sys

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

vae = AutoencoderKL.from_pretrained(sys.argv[1], torch_dtype=torch.float32)
vae.enable_tiling()
generator = torch.Generator("cpu").manual_seed(0)
latents = torch.randn(1, 4, 22, 19, generator=generator)
image = torch.rand(1, 3, 88, 72, generator=generator) * 2 - 1
with torch.no_grad():
    decoded = vae.decode(latents).sample
    moments = vae._encode(image)
tensors = {"latents": latents, "decoded": decoded, "image": image, "moments": moments}
save_file({name: x.contiguous() for name, x in tensors.items()}, sys.argv[2])
