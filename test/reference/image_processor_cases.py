"""What diffusers' VaeImageProcessor makes of pictures, masks and tensors, and how FLUX packs latents.

python image_processor_cases.py ../fixtures/image_processor.safetensors
"""

import io
import json
import sys

import numpy as np
import torch
from diffusers import FluxPipeline
from diffusers.image_processor import VaeImageProcessor
from generated_weights import randn
from pipelines import picture
from PIL import Image
from safetensors.torch import save_file

MASK = dict(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
RGB = dict(do_convert_rgb=True)
# name, options of the processor, arguments of preprocess, [seed, height, width] of the pictures, their mode
CASES = [
    ("cut to multiples of 8", {}, {}, [[1, 35, 53]], "RGB"),
    ("a size that fits stays as it is", {}, {}, [[1, 16, 24]], "RGB"),
    ("enlarged", {}, dict(height=56, width=72), [[2, 19, 23]], "RGB"),
    ("made smaller, much", {}, dict(height=16, width=8), [[3, 130, 97]], "RGB"),
    ("one axis alone: wider", {}, dict(height=32, width=64), [[4, 32, 40]], "RGB"),
    ("one axis alone: lower", {}, dict(height=16, width=40), [[4, 32, 40]], "RGB"),
    ("one pixel", {}, dict(height=8, width=8), [[5, 1, 1]], "RGB"),
    ("two pictures", {}, dict(height=16, width=16), [[6, 20, 30], [7, 21, 17]], "RGB"),
    ("another scale factor", dict(vae_scale_factor=16), {}, [[8, 50, 35]], "RGB"),
    ("not normalised", dict(do_normalize=False), {}, [[8, 20, 20]], "RGB"),
    ("grey to RGB", RGB, {}, [[9, 20, 27]], "L"),
    ("a region", {}, dict(crops_coords=[5, 3, 29, 19]), [[10, 30, 40]], "RGB"),
    ("a region beyond the edges", {}, dict(crops_coords=[-4, -2, 20, 30]), [[10, 24, 16]], "RGB"),
    ("crop, wide picture", {}, dict(height=32, width=24, resize_mode="crop"), [[11, 30, 71]], "RGB"),
    ("crop, tall picture", {}, dict(height=24, width=32, resize_mode="crop"), [[11, 71, 30]], "RGB"),
    ("crop, same proportions", {}, dict(height=24, width=32, resize_mode="crop"), [[11, 48, 64]], "RGB"),
    ("fill, wide picture", {}, dict(height=32, width=24, resize_mode="fill"), [[12, 30, 71]], "RGB"),
    ("fill, tall picture", {}, dict(height=24, width=32, resize_mode="fill"), [[12, 71, 30]], "RGB"),
    ("fill, an odd gap", {}, dict(height=40, width=24, resize_mode="fill"), [[12, 21, 24]], "RGB"),
    ("fill, same proportions", {}, dict(height=24, width=32, resize_mode="fill"), [[12, 12, 16]], "RGB"),
    ("mask in colours", MASK, {}, [[13, 33, 41]], "RGB"),
    ("mask in grey", MASK, dict(height=24, width=24), [[13, 40, 31]], "L"),
    ("tensor", {}, {}, [[14, 21, 35]], "tensor"),
    ("tensor, resized", {}, dict(height=48, width=24), [[14, 21, 35]], "tensor"),
    ("mask as a tensor", MASK, dict(height=16, width=16), [[15, 21, 35]], "grey tensor"),
]


def inputs(pictures, mode):
    """The pictures as preprocess takes them, and as numbers for the test: [B,H,W,C]."""
    pixels = [picture(*p) for p in pictures]
    if mode == "L":
        grey = [Image.fromarray(p).convert("L") for p in pixels]
        return grey, [np.array(p)[..., None] for p in grey]
    if mode == "RGB":
        return [Image.fromarray(p) for p in pixels], pixels
    floats = np.stack(pixels).astype(np.float32) / 255
    floats = floats if mode == "tensor" else floats[..., :1]
    return torch.from_numpy(floats.transpose(0, 3, 1, 2)), list(floats)


tensors, cases = {}, []
for i, (name, options, args, pictures, mode) in enumerate(CASES):
    given, numbers = inputs(pictures, mode)
    tensors[f"{i}.out"] = VaeImageProcessor(**options).preprocess(given, **args).contiguous()
    for k, pixels in enumerate(numbers):
        tensors[f"{i}.in{k}"] = torch.from_numpy(np.ascontiguousarray(pixels))
    cases.append(dict(name=name, options=options, args=args))

latents = randn(3, 2, 4, 6, 8)
tensors["latents"] = latents
tensors["packed"] = FluxPipeline._pack_latents(latents, 2, 4, 6, 8).contiguous()

# files, whose pixels Pillow reads: a colour picture with transparency, one that its EXIF data turns, one in grey
files = {}
rgba = Image.fromarray(np.dstack([picture(20, 9, 13), picture(21, 9, 13)[..., 0]]), "RGBA")
turned = Image.fromarray(picture(22, 9, 13))
exif = Image.Exif()
exif[0x0112] = 6
grey = Image.fromarray(picture(23, 9, 13)).convert("L")
for name, image, saving in [("rgba", rgba, {}), ("turned", turned, dict(exif=exif)), ("grey", grey, {})]:
    file = io.BytesIO()
    image.save(file, "PNG", **saving)
    upright = image.transpose(Image.Transpose.ROTATE_270) if name == "turned" else image
    tensors[f"{name}.file"] = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    tensors[f"{name}.pixels"] = torch.from_numpy(np.array(upright.convert("RGB")))
save_file(tensors, sys.argv[1], metadata={"cases": json.dumps(cases)})
print(len(cases), "cases")
