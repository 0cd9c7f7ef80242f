"""What diffusers' AutoencoderTiny encodes and decodes, with weights that generated_weights.py describes.

python tiny_vae_cases.py ../fixtures/models/tiny_vae.safetensors
"""

import json, sys
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from generated_weights import fill, randn


def config(width, encoder, decoder, **rest):
    return dict(
        encoder_block_out_channels=[width] * len(encoder),
        decoder_block_out_channels=[width] * len(decoder),
        num_encoder_blocks=encoder,
        num_decoder_blocks=decoder,
        **rest,
    )


CASES = {
    "TAESD's stages": (config(8, [1, 3, 3, 3], [3, 3, 3, 1]), (24, 40), None),
    "two stages, odd sizes": (config(8, [1, 2], [2, 1]), (19, 25), None),
    "other channels, silu": (
        config(4, [2, 1], [1, 1], latent_channels=6, act_fn="silu", scaling_factor=0.5),
        (10, 14),
        None,
    ),
    "in tiles": (config(8, [1, 1, 1, 1], [1, 1, 1, 1]), (112, 80), 64),
}
tensors, cases = {}, []
for i, (name, (settings, size, tile)) in enumerate(CASES.items()):
    vae = AutoencoderTiny(**settings).eval()
    digest = fill(vae)
    if tile:
        vae.enable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size, vae.tile_overlap_factor = tile, tile // 8, 0.25
    image = randn(1, 2, 3, *size).clamp(-1, 1)
    with torch.no_grad():
        latents = vae.encode(image).latents
        given = dict(image=image, encoded=latents, latents=3 * randn(2, *latents.shape))
        given["out"] = vae.decode(given["latents"]).sample
    tensors.update({f"{i}.{k}": v.float().contiguous().clone() for k, v in given.items()})
    cases.append({"name": name, "config": settings, "digest": digest, "tile": tile})
save_file(tensors, sys.argv[1], metadata={"cases": json.dumps(cases)})
print(len(cases), "cases")
